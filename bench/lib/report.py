# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures as a table on the terminal and as JSON."""
import json
import os
import statistics

from targets import NOT_RUN


def spread(values):
    v = [x for x in values if x is not None]
    return (min(v), statistics.median(v), max(v)) if v else None


def write_json(path, machine, figures, targets, full):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        json.dump({'machine': machine, 'full': full, 'targets': targets, 'figures': figures.results, 'not_measured': figures.not_measured,
                   'configurations': figures.configs}, f)


def number(x):
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def cpu_us(r):
    """CPU of the servers for each request, in microseconds."""
    total = r.get('cpu_s', 0) + r.get('secondary_cpu_s', 0)
    return total * 1e6 / r['done'] if r.get('done') else None


def rows(figures):
    """(name, min, median, max, unit, p50, p99, CPU of the server, CPU of the load) of each figure with a rate."""
    for name, results in figures.results.items():
        results = [r for r in results if r and 'rate' in r]
        if not results:
            continue
        low, mid, high = spread([r['rate'] for r in results])
        answers = [r['answer'] for r in results if r.get('answer', {}).get('count')]
        p50 = statistics.median([a['p50_ms'] for a in answers]) if answers else None
        p99 = statistics.median([a['p99_ms'] for a in answers]) if answers else None
        cpu = [c for c in map(cpu_us, results) if c is not None]
        load = [r['generator_cpu_s'] / r['seconds'] for r in results if 'generator_cpu_s' in r]
        yield (name, low, mid, high, p50, p99, statistics.median(cpu) if cpu else None, statistics.median(load) if load else None)


def others(figures):
    """(name, medians of its members) of each figure that is no rate."""
    for name, results in figures.results.items():
        results = [r for r in results if r and 'rate' not in r]
        if results:
            members = [k for k, v in results[0].items() if isinstance(v, (int, float))]
            yield name, ', '.join(f'{k} {number(statistics.median([r[k] for r in results if k in r]))}' for k in members)


def cell(x, form, width):
    return f'{format(x, form) if x is not None else "":>{width}}'


def print_figures(figures):
    print(f'\n{"":32}{"least":>11}{"median/s":>11}{"most":>11}{"p50 ms":>9}{"p99 ms":>9}{"CPU us":>8}{"load":>7}')
    for name, low, mid, high, p50, p99, cpu, load in rows(figures):
        print(f'{name:32}{low:11,.0f}{mid:11,.0f}{high:11,.0f}{cell(p50, ".2f", 9)}{cell(p99, ".2f", 9)}{cell(cpu, ".1f", 8)}{cell(load, ".0%", 7)}')
    print('CPU us: of the servers, both of a pair, for each request. load: share of a core that the load generator took.')


def print_others(figures):
    for name, text in others(figures):
        print(f'{name:32}{text}')


def stages(figures):
    """(name, [(stage, p50, p99)]) of each figure that was taken apart: the newest."""
    for name, results in figures.results.items():
        found = [r for r in results if r and 'stages' in r]
        if found:
            yield name, [(s['stage'], s['hist']['p50_ms'], s['hist']['p99_ms']) for s in found[-1]['stages']]


def print_stages(figures):
    for name, way in stages(figures):
        print(f'\n{name:32}{"p50 ms":>9}{"p99 ms":>9}')
        for stage, p50, p99 in way:
            print(f'  {stage:30}{p50:9.3f}{p99:9.3f}')


def verdict(t):
    if t['median'] is None:
        return t['why']
    return ('met' if t['met'] else 'NOT MET') + f'  ({number(t["min"])} to {number(t["max"])})'


def print_targets(targets):
    """All lines but those whose part did not run."""
    print(f'\n{"work":86}{"wanted":>20}{"median":>10}')
    for t in targets:
        if t['median'] is None and t['why'].endswith(NOT_RUN):
            continue
        wanted = f'{"≥" if t["direction"] == "at least" else "≤"} {number(t["floor"])} {t["unit"]}'
        print(f'{t["name"]:86}{wanted:>20}{number(t["median"]) if t["median"] is not None else "":>10}  {verdict(t).splitlines()[0][:110]}')
    print(f'{sum(t["met"] for t in targets)} of {len(targets)} lines met, {sum(t["median"] is None for t in targets)} not measured')
