# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures as one HTML file with SVG plots: no script, nothing from elsewhere."""
import html

import machine
import plot
import report

STYLE = '''body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;font-size:13px}td,th{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}
.met{color:#0a6b2d}.no{color:#b00020}.none{color:#777}figure{margin:1em 0}svg{max-width:100%;height:auto}figcaption{font-size:13px;color:#555}'''


def targets_table(targets):
    out = ['<table><tr><th>work<th>wanted<th>least<th>median<th>most<th>']
    for t in targets:
        sign = '≥' if t['direction'] == 'at least' else '≤'
        cells = [report.number(t[k]) if t[k] is not None else '' for k in ('min', 'median', 'max')]
        kind, word = ('none', t['why']) if t['median'] is None else ('met', 'met') if t['met'] else ('no', 'not met')
        out.append(f'<tr><td>{html.escape(t["name"])}<td>{sign} {report.number(t["floor"])} {t["unit"]}' + ''.join(f'<td>{c}' for c in cells) +
                   f'<td class="{kind}">{html.escape(word)}')
    return ''.join(out) + '</table>'


def figures_table(figures):
    out = ['<table><tr><th>figure<th>least/s<th>median/s<th>most/s<th>p50 ms<th>p99 ms<th>CPU µs of the servers for each request<th>core taken by the load']
    for name, low, mid, high, p50, p99, cpu, load in report.rows(figures):
        out.append(f'<tr><td>{html.escape(name)}<td>{low:,.0f}<td>{mid:,.0f}<td>{high:,.0f}<td>{report.cell(p50, ".2f", 0)}<td>{report.cell(p99, ".2f", 0)}'
                   f'<td>{report.cell(cpu, ".1f", 0)}<td>{report.cell(load, ".0%", 0)}')
    out += [f'<tr><td>{html.escape(name)}<td colspan="7" style="text-align:left">{html.escape(text)}' for name, text in report.others(figures)]
    return ''.join(out) + '</table>'


def stages_tables(figures):
    for name, way in report.stages(figures):
        yield f'<table><tr><th>{html.escape(name)}: where the time of a write goes<th>p50 ms<th>p99 ms'
        yield ''.join(f'<tr><td>{html.escape(stage)}<td>{p50:.3f}<td>{p99:.3f}' for stage, p50, p99 in way) + '</table>'


def last(figures, prefix, member):
    """(name, newest result) of the figures with that prefix that have the member."""
    for name, results in figures.results.items():
        found = [r for r in results if r and member in r]
        if name.startswith(prefix) and found:
            yield name, found[-1]


def cdf(points):
    """Share that takes longer, so that the tail shows; both axes logarithmic."""
    return [(max(ms, 1e-3), max(1 - share, 1e-5)) for ms, share in points]


def plots(figures):
    offered = [(r['offered'], r['rate'], r['answer']['p99_ms']) for _, r in last(figures, 'engine.offered.', 'offered')]
    offered.sort()
    if offered:
        yield plot.lines('Throughput against offered load (engine alone, open loop)', 'offered, writes/s', 'answered, writes/s',
                         {'answered': [(o, r) for o, r, _ in offered], 'offered': [(o, o) for o, _, _ in offered]})
        yield plot.lines('p99 of the answer against offered load', 'offered, writes/s', 'ms, from due to answered',
                         {'p99': [(o, max(p, 1e-3)) for o, _, p in offered]}, log_y=True)
    for title, prefixes in (('Latency of a durable write, engine and peers, 64 clients', ('engine.alone.64.256', 'engine.flush.64', 'etcd.put.64', 'redis.always.64', 'postgres.local.64', 'postgres.on.64')),
                            ('Latency of the API, 64 connections', ('api.v1.put.64.256', 'api.v1.get.64.256', 'api.v2.put.64.256', 'nginx.get.64.256', 'bao.'))):
        curves = {name: cdf(r['answer']['cdf']) for p in prefixes for name, r in last(figures, p, 'answer') if r['answer'].get('cdf')}
        if curves:
            yield plot.lines(title, 'ms', 'share that takes longer', curves, log_x=True, log_y=True)
    lags = {f'{name} {at}': cdf(r['lag'][at]['hist']['cdf']) for name, r in last(figures, 'lag.', 'lag') for at in ('durable', 'applied')
            if r['lag'][at]['hist']['cdf'] and (at == 'durable' or name in ('lag.10000', 'lag.80'))}
    if lags:
        yield plot.lines('Lag, from durable here to durable and applied there', 'ms', 'share that takes longer', lags, log_x=True, log_y=True)
    over_time = {f'{name} {at}': [(i / 10, max(x, 1e-2)) for i, x in enumerate(v['tick_max_ms'])]
                 for part in ('lag.10000', 'lag.80', 'catchup.') for name, r in last(figures, part, 'lag') if 'ms' not in name
                 for at, v in r['lag'].items() if len(v['tick_max_ms']) > 1}
    if over_time:
        yield plot.lines('Lag over time: the largest of each tenth of a second', 's', 'ms', over_time, log_y=True)
    rates = {name: list(enumerate(r['per_second'])) for part in ('engine.sustained.', 'engine.large', 'catchup.')
             for name, r in last(figures, part, 'per_second') if len(r['per_second']) > 2}
    if rates:
        yield plot.lines('Writes answered in each second', 's', 'writes', rates)
    costs = {name: cpu for name, _, _, _, _, _, cpu, _ in report.rows(figures) if cpu}
    if costs:
        yield plot.bars('CPU of the servers for each request', 'µs', costs)


def write(path, about, figures, targets):
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Lockstep: benchmark</title><style>{STYLE}</style><h1>Lockstep beside its peers</h1>',
             f'<p>{html.escape(machine.line(about))}</p><h2>Targets</h2>', targets_table(targets), '<h2>Plots</h2>', *plots(figures),
             '<h2>Figures</h2>', figures_table(figures), *stages_tables(figures), '<h2>Configurations</h2><ul>',
             *(f'<li><b>{html.escape(k)}</b>: {html.escape(v)}' for k, v in figures.configs.items()), '</ul>']
    if figures.not_measured:
        parts += ['<h2>Not measured</h2><ul>', *(f'<li>{html.escape(k)}: {html.escape(v)}' for k, v in figures.not_measured.items()), '</ul>']
    with open(path, 'w') as f:
        f.write('\n'.join(parts))
