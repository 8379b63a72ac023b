#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does patchbay compare find a slowdown whose size is known?

    bench/power.py --build build [--model M.gguf] [--percent 2] [--runs 3] [--max-time 300]

The arm is the base with output-drag (tests/plugins, built by `make check`), which makes every step
that much slower. A run succeeds when requests/s is judged slower within the time; the interval
should hold the true ratio, 1 / (1 + percent / 100), as often as its level says.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", default=os.path.join(here, "..", "build"))
    p.add_argument("--model")
    p.add_argument("--percent", type=float, default=2)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--max-time", type=float, default=300)
    p.add_argument("--rounds", type=int, default=4)
    opt = p.parse_args()
    env = dict(os.environ)
    env["PATCHBAY_PLUGIN_PATH"] = ":".join(
        os.path.join(opt.build, d) for d in (".libs", os.path.join("tests", "plugins", ".libs")))
    found, held, true = 0, 0, 1 / (1 + opt.percent / 100)
    with tempfile.TemporaryDirectory() as work:
        ini = os.path.join(work, "p.ini")
        with open(ini, "w", encoding="utf-8") as f:
            if not opt.model:
                f.write("[weights]\nplugin = synthetic\nlayers = 4\nwidth = 256\nffn = 768\n"
                        "type = q8_0\n")
            f.write("[pipeline]\ncontext = 512\nkv_bytes = 64M\n")
        w = os.path.join(work, "w.ini")
        with open(w, "w", encoding="utf-8") as f:
            f.write("[workload]\nkind = uniform\nrequests = 8\nprompt = 32\noutput = 48\n"
                    "clients = 4\n")
        for seed in range(1, opt.runs + 1):
            began = time.time()
            cmd = [os.path.join(opt.build, "patchbay"), "compare", ini, "--with",
                   f"output=drag,output.drag.percent={opt.percent}", "-w", w, "--seed", str(seed),
                   "--rounds", str(opt.rounds), "--until", str(opt.percent / 4), "--delta",
                   str(opt.percent / 4), "--max-time", str(opt.max_time), "--json"]
            if opt.model:
                cmd += ["-m", opt.model]
            out = subprocess.run(cmd, capture_output=True, text=True, check=False, env=env)
            if out.returncode:
                sys.exit(f"{' '.join(cmd)} ended with {out.returncode}: {out.stderr.strip()}")
            doc = json.loads(out.stdout)
            m = doc["comparisons"][0]["metrics"]["requests_per_s"]
            slower = m["verdict"] == "slower"
            inside = m["lo"] is not None and m["lo"] <= true <= m["hi"]
            found += slower
            held += inside
            print(f"seed {seed}: {m['verdict']}, ratio {m['ratio']:.4f} "
                  f"[{m['lo'] or 0:.4f}, {m['hi'] or 0:.4f}], true {true:.4f}, "
                  f"{doc['epochs']} epochs, {time.time() - began:.0f} s, "
                  f"{doc['rows_disturbed']} of {len(doc['rows'])} blocks disturbed", flush=True)
    print(f"{opt.percent} % found in {found} of {opt.runs} runs; the interval held the truth in "
          f"{held}")
    return 0 if found == opt.runs else 1


if __name__ == "__main__":
    sys.exit(main())
