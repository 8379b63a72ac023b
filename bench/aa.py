#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How often does patchbay compare see a difference where there is none?

    bench/aa.py [--runs 100] [--patchbay build/patchbay] [--model M.gguf --file R.jsonl]

Runs short comparisons of a pipeline with itself, each with another seed, and counts those with a
verdict of faster or slower in any of the seven metrics. The level that all metrics and arms of a
comparison share is 3.5 %, so about that many of a hundred, and at most 5, are allowed. Without a
model it runs a small made-up one.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))


def compare(opt, work, seed, extra):
    cmd = [opt.patchbay, "compare", os.path.join(work, "p.ini"), *extra, "-f",
           opt.file or os.path.join(work, "r.jsonl"), "--seed", str(seed), "--rounds",
           str(opt.rounds), "--json"]
    if opt.model:
        cmd += ["-m", opt.model]
    out = subprocess.run(cmd, capture_output=True, text=True, check=False)
    if out.returncode not in (0, 11):
        sys.exit(f"{' '.join(cmd)} ended with {out.returncode}: {out.stderr.strip()}")
    return json.loads(out.stdout)


def verdicts(doc):
    return {m: v["verdict"] for c in doc["comparisons"] for m, v in c["metrics"].items()}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--runs", type=int, default=100)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--patchbay", default=os.path.join(here, "..", "build", "patchbay"))
    p.add_argument("--model")
    p.add_argument("--file")
    opt = p.parse_args()
    with tempfile.TemporaryDirectory() as work:
        with open(os.path.join(work, "p.ini"), "w", encoding="utf-8") as f:
            if not opt.model:
                f.write("[weights]\nplugin = synthetic\nlayers = 4\nwidth = 256\nffn = 768\n"
                        "type = q8_0\n")
            f.write("[pipeline]\ncontext = 512\nkv_bytes = 64M\n")
        with open(os.path.join(work, "r.jsonl"), "w", encoding="utf-8") as f:
            for i in range(8):
                f.write(json.dumps({"ids": [5 + (i * 7 + k * 3) % 400 for k in range(64)],
                                    "max_tokens": 24, "ignore_eos": True}) + "\n")
        wrong, names, disturbed, seconds = 0, {}, 0, 0.0
        for seed in range(1, opt.runs + 1):
            doc = compare(opt, work, seed, [os.path.join(work, "p.ini")])
            seen = [m for m, v in verdicts(doc).items() if v in ("faster", "slower")]
            wrong += bool(seen)
            disturbed += doc["rows_disturbed"]
            seconds += doc["seconds"]
            for m in seen:
                names[m] = names.get(m, 0) + 1
            if not doc["same_logits"]:
                sys.exit(f"seed {seed}: equal pipelines gave other logits")
        print(f"{wrong} of {opt.runs} comparisons of equal arms saw a difference {names or ''}; "
              f"{disturbed} disturbed blocks, {seconds / opt.runs:.1f} s each")
        sys.exit(wrong > 5 * opt.runs / 100)


if __name__ == "__main__":
    main()
