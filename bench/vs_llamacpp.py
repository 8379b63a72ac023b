#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prefill and decode of patchbay and llama.cpp on one model file, in turns.

    bench/vs_llamacpp.py --llama-bench PATH/llama-bench [--rounds 7] [--threads 2] MODEL.gguf...

Prefill: one prompt of 512 tokens on an empty cache. Decode: 128 tokens after the first. Both
programs warm up before they measure (patchbay by an earlier request of the same run), run one
after the other in each round, in alternating order, and get the same number of threads. The
result is the median of the rounds' ratios, patchbay over llama.cpp, with the least and the
greatest; speeds are medians. Run it when nothing else runs. Below each line: how close patchbay
is to the machine's floor (bench_floor, built by `make bench_floor`).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

PREFILL, DECODE = 512, 128
here = os.path.dirname(os.path.abspath(__file__))


def patchbay(opt, model, n_prompt, n_new):
    """Seconds of the prefill and of one decode step, of the last of three equal requests that
    run one after the other."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", dir=opt.tmp) as f:
        ids = [100 + i for i in range(n_prompt)]
        for _ in range(3):
            f.write(json.dumps({"ids": ids, "max_tokens": n_new}) + "\n")
        f.flush()
        out = subprocess.run(
            [opt.patchbay, "run", "-c", opt.conf, "-m", model, "-f", f.name, "--ignore-eos",
             "--json", "--set", "pipeline.max_seqs=1", "--set", f"pipeline.threads={opt.threads}"],
            capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(f"patchbay failed: {out.stderr.strip()}")
    d = json.loads(out.stdout)
    before, r = d["requests"][1], d["requests"][2]
    if len(r["output_ids"]) != n_new or r["cached_tokens"]:
        sys.exit("patchbay did not compute what was asked for")
    return (r["ttft_ms"] - before["e2e_ms"]) / 1e3, (r["tpot_ms"] or 0) / 1e3, \
        d["totals"]["weight_bytes"]


def llama(opt, model, kind, n):
    args = ["-p", str(n), "-n", "0"] if kind == "pp" else ["-p", "0", "-n", str(n)]
    env = dict(os.environ)
    env["LD_LIBRARY_PATH"] = os.path.dirname(opt.llama_bench) + ":" + \
        env.get("LD_LIBRARY_PATH", "")
    out = subprocess.run([opt.llama_bench, "-m", model, "-t", str(opt.threads), "-r", "1",
                          "-o", "json", *args], capture_output=True, text=True, env=env,
                         check=False)
    if out.returncode:
        sys.exit(f"llama-bench failed with {out.returncode}: {out.stderr.strip()[-400:]}")
    return json.loads(out.stdout)[0]["avg_ts"]


def floor(opt, mib):
    exe = os.path.join(os.path.dirname(os.path.abspath(opt.patchbay)), "bench_floor")
    if not os.access(exe, os.X_OK):
        return None
    out = subprocess.run([exe, str(opt.threads), str(mib)], capture_output=True, text=True,
                         check=True).stdout.split()
    return float(out[1]) * 1e9, float(out[3]) * 1e9


def both(opt, model, kind):
    """One round's speeds in tokens/s: patchbay, llama.cpp."""
    n = PREFILL if kind == "pp" else DECODE

    def ours():
        pre, step, _ = patchbay(opt, model, n if kind == "pp" else 1, 1 if kind == "pp" else n + 1)
        return n / pre if kind == "pp" else 1 / step

    if both.turn % 2:
        a = ours()
        b = llama(opt, model, kind, n)
    else:
        b = llama(opt, model, kind, n)
        a = ours()
    both.turn += 1
    return a, b


both.turn = 0


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("models", nargs="+", metavar="MODEL.gguf")
    p.add_argument("--llama-bench", required=True)
    p.add_argument("--patchbay", default=os.path.join(here, "..", "build", "patchbay"))
    p.add_argument("--conf", default=os.path.join(here, "..", "conf", "baseline.ini"))
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--tmp", default=None)
    opt = p.parse_args()
    print(f"{opt.threads} threads, {opt.rounds} rounds, alternating; ratio = patchbay / llama.cpp")
    for model in opt.models:
        weight_bytes = patchbay(opt, model, 1, 1)[2]
        limit = floor(opt, max(1, weight_bytes >> 20))
        for kind, label in (("pp", f"prefill {PREFILL}"), ("tg", f"decode {DECODE}")):
            rows = [both(opt, model, kind) for _ in range(opt.rounds)]
            ratio = sorted(a / b for a, b in rows)
            ours = statistics.median(a for a, _ in rows)
            print(f"{os.path.basename(model):28} {label:12} patchbay {ours:8.1f} t/s   "
                  f"llama.cpp {statistics.median(b for _, b in rows):8.1f} t/s   "
                  f"ratio {statistics.median(ratio):5.2f}  ({ratio[0]:.2f} .. {ratio[-1]:.2f})",
                  flush=True)
            if limit and kind == "tg":
                print(f"{'':42}{weight_bytes * ours * 1e-9:.1f} GB/s of weights, "
                      f"{100 * weight_bytes * ours / limit[0]:.0f} % of what the cores can read")


if __name__ == "__main__":
    main()
