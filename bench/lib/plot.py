# SPDX-License-Identifier: GPL-3.0-or-later
"""Line and bar plots as SVG text."""
import html
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 380, 80, 230, 16, 46
COLOURS = ('#1b6ca8', '#c0392b', '#27823b', '#8e44ad', '#d35400', '#148f8f', '#7f6a00', '#b03a8c', '#444444', '#5b7fd1')


class Scale:
    def __init__(self, values, log, at, to):
        self.log, self.at, self.to = log, at, to
        low, high = min(values), max(values)
        if log:
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        else:
            self.low, self.high = min(low, 0), high
        if self.low == self.high:
            self.high += 1

    def __call__(self, v):
        v = math.log10(v) if self.log else v
        return self.at + (v - self.low) / (self.high - self.low) * (self.to - self.at)

    def ticks(self):
        if self.log:
            return [10.0 ** i for i in range(int(self.low), int(self.high) + 1)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 6)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def label(v):
    return f'{v / 1e6:g} M' if abs(v) >= 1e6 else f'{v / 1e3:g} k' if abs(v) >= 1e3 else f'{v:g}'


def text(x, y, words, anchor='middle', more=''):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" {more}>{html.escape(words)}</text>'


def figure(title, body, height=HEIGHT):
    return (f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
            f'aria-label="{html.escape(title)}" font-family="system-ui,sans-serif">{"".join(body)}</svg></figure>')


def lines(title, x_name, y_name, curves, log_x=False, log_y=False):
    """curves: name -> [(x, y)], values above 0 where the axis is logarithmic."""
    points = [p for c in curves.values() for p in c if (p[0] > 0 or not log_x) and (p[1] > 0 or not log_y)]
    x = Scale([p[0] for p in points], log_x, LEFT, WIDTH - RIGHT)
    y = Scale([p[1] for p in points], log_y, HEIGHT - BOTTOM, TOP)
    body = []
    for t in x.ticks():
        body += [f'<path d="M{x(t):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>', text(x(t), HEIGHT - BOTTOM + 16, label(t))]
    for t in y.ticks():
        body += [f'<path d="M{LEFT} {y(t):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>', text(LEFT - 6, y(t) + 4, label(t), 'end')]
    body += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name),
             text(0, 0, y_name, more=f'transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"')]
    for i, (name, c) in enumerate(curves.items()):
        colour, dash = COLOURS[i % len(COLOURS)], '' if i < len(COLOURS) else ' stroke-dasharray="5 3"'
        path = ' '.join(f'{x(a):.1f},{y(b):.1f}' for a, b in c if (a > 0 or not log_x) and (b > 0 or not log_y))
        at = TOP + 12 + 17 * i
        body += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>',
                 f'<path d="M{WIDTH - RIGHT + 10} {at - 4}h18" stroke="{colour}" stroke-width="3"{dash}/>', text(WIDTH - RIGHT + 34, at, name, 'start')]
    return figure(title, body, max(HEIGHT, TOP + 17 * len(curves) + 20))


def bars(title, unit, values):
    x = Scale([0, *values.values()], False, 260, WIDTH - 90)
    body = []
    for i, (name, v) in enumerate(values.items()):
        at = TOP + 20 * i
        body += [text(252, at + 12, name, 'end'), f'<rect x="260" y="{at}" width="{x(v) - 260:.1f}" height="15" fill="{COLOURS[0]}"/>',
                 text(x(v) + 6, at + 12, f'{v:.1f} {unit}', 'start')]
    return figure(title, body, TOP + 20 * len(values) + 10)
