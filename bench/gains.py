#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What each optimization brings on the workload that it is made for, and costs where it cannot help.

    bench/gains.py --model SMOLLM2.gguf [--build build] [--only radix,chunked] [--traces DIR]

Every ratio is from `patchbay compare`: arms interleaved, with the interval over epochs, tokens and
logits of all answers compared. --traces names a folder with mooncake/conversation_trace.jsonl. The
figures that are asked for stand beside the measured ones; the exit status is 1 if one is missed.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
conf = os.path.join(here, "..", "conf")


class Bench:
    def __init__(self, opt, work):
        self.opt, self.work, self.missed = opt, work, 0

    def file(self, name, text):
        path = os.path.join(self.work, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def patchbay(self, *args, ok=(0,)):
        env = dict(os.environ)
        env.setdefault("PATCHBAY_PLUGIN_PATH", os.path.join(self.opt.build, ".libs"))
        out = subprocess.run([os.path.join(self.opt.build, "patchbay"), *args],
                             capture_output=True, text=True, check=False, env=env)
        if out.returncode not in ok:
            sys.exit(f"patchbay {' '.join(args)} ended with {out.returncode}: {out.stderr.strip()}")
        return json.loads(out.stdout)

    def compare(self, base, with_, workload, *more, ok=(0,)):
        args = ["compare", base, "--with", with_, "-m", self.opt.model, "-w", workload, "--json"]
        if self.opt.epochs:
            args += ["--epochs", str(self.opt.epochs)]
        return self.patchbay(*args, *more, ok=ok)

    def say(self, name, text, asked, good):
        self.missed += not good
        print(f"{name:30} {text:48} asked: {asked:22} {'ok' if good else 'MISSED'}", flush=True)


def ratio(doc, key):
    m = doc["comparisons"][0]["metrics"][key]
    if m["lo"] is None:
        return m["ratio"], f"{m['ratio']:.3f}"
    return m["ratio"], f"{m['ratio']:.3f} [{m['lo']:.3f}, {m['hi']:.3f}]"


def same(doc):
    return "same tokens" if doc["same_logits"] else "OTHER TOKENS"


def radix(b):
    base = os.path.join(conf, "paged.ini")
    w = os.path.join(conf, "workloads", "shared-prefix.ini")
    doc = b.compare(base, "attention=radix", w)
    (r, rs), (e, es) = ratio(doc, "requests_per_s"), ratio(doc, "e2e_ms")
    b.say("radix / paged, requests/s", f"{rs}, {same(doc)}", "at least 1.5", r >= 1.5)
    b.say("radix / paged, E2E", es, "at most 0.70", e <= 0.7)
    doc = b.compare(base, "attention=radix", w, "--workload-set", "groups=1000000",
                    "--workload-set", "requests=24", ok=(0, 11))
    r, rs = ratio(doc, "requests_per_s")
    b.say("  nothing shared, requests/s", f"{rs}, {same(doc)}", "at least 0.99", r >= 0.99)


def chunked(b):
    base = b.file("chunked.ini", f"[pipeline]\nbase = {conf}/paged.ini\ncontext = 2304\n"
                                 "max_rows = 2304\n")
    w = b.file("chunked-w.ini", "[workload]\nkind = mix\nrequests = 24\nprompt = 32..64\n"
                                "output = 64\nlong_share = 0.25\nlong_prompt = 2000\n"
                                "long_output = 8\nclients = 8\n")
    doc = b.compare(base, "scheduler=chunked,scheduler.budget=128", w)
    (i, is_), (r, rs) = ratio(doc, "itl_p99_ms"), ratio(doc, "tokens_per_s")
    b.say("chunked / continuous, p99 ITL", f"{is_}, {same(doc)}", "at most 0.5", i <= 0.5)
    b.say("  tokens/s", rs, "at least 0.95", r >= 0.95)


def paged(b):
    base = os.path.join(conf, "article", "paged", "before.ini")
    doc = b.compare(base, "attention=paged", os.path.join(conf, "article", "paged", "workload.ini"))
    r, rs = ratio(doc, "requests_per_s")
    b.say("paged / contiguous, requests/s", f"{rs}, {same(doc)}", "at least 2", r >= 2)
    most = [max(a["timeline"]["running"]) for a in doc["arms"][:2]]
    b.say("  most sequences at a time", f"{most[0]:.0f} and {most[1]:.0f}", "several times",
          most[1] >= 3 * most[0])


def output(b):
    base = os.path.join(conf, "paged.ini")
    w = b.file("output-w.ini", "[workload]\nkind = uniform\nrequests = 16\nprompt = 32\noutput = 96\n"
                               "clients = 4\n")
    doc = b.compare(base, "output=brief,output.brief.max_tokens=24", w, ok=(0, 10))
    tokens = doc["arms"][1]["output_tokens"] / doc["arms"][0]["output_tokens"]
    e, es = ratio(doc, "e2e_ms")
    b.say("brief (24 of 96), tokens", f"{tokens:.3f}", "0.25", abs(tokens - 0.25) < 1e-9)
    b.say("  E2E", es, "at most 0.35", e <= 0.35)


def mooncake(b):
    if not b.opt.traces:
        print("mooncake: no --traces")
        return
    doc = b.patchbay("run", "-c", os.path.join(conf, "sim.ini"), "--set", "attention=radix", "--set",
                     "weights=synthetic", "--set", "pipeline.kv_bytes=8G", "--set",
                     "pipeline.context=4096", "-w", os.path.join(conf, "workloads", "mooncake.ini"),
                     "--workload-set", "requests=0", "--workload-set",
                     f"file={b.opt.traces}/mooncake/conversation_trace.jsonl", "--json")
    t = doc["totals"]
    hit = 100 * t["cached_tokens"] / t["prompt_tokens"]
    b.say("radix on mooncake, hit rate", f"{hit:.2f} % (ideal of the trace 36.6 %)",
          "within 1 of the ideal", abs(hit - 36.6) <= 1)


def policies(b):
    """Time inside of attention, scheduler, sampler, outputs and the core's own, at 64 running."""
    w = b.file("policies-w.ini", "[workload]\nkind = uniform\nrequests = 64\nprompt = 16\n"
                                 "output = 64\nclients = 64\n")
    for attention in ("paged", "radix"):
        doc = b.compare(os.path.join(conf, f"{attention}.ini"), "pipeline.threads=0", w, "--set",
                        "pipeline.max_seqs=64", "--epochs", "1")
        calls = {p["slot"]: sum(c["ms"] for n, c in p["calls"].items() if n not in ("run", "submit",
                                                                                   "wait"))
                 for p in doc["arms"][0]["plugins"]}
        step = next(c["ms"] for p in doc["arms"][0]["plugins"] if p["slot"] == "process"
                    for n, c in p["calls"].items() if n == "run")
        mine = sum(ms for s, ms in calls.items() if s in ("attention", "scheduler", "sampler",
                                                          "output", "constraint", "spec"))
        b.say(f"policies of {attention}, 64 running", f"{100 * mine / step:.3f} % of the time",
              "under 3 %", mine < 0.03 * step)


def main():
    all_ = {f.__name__: f for f in (radix, chunked, paged, output, mooncake, policies)}
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", default=os.path.join(here, "..", "build"))
    p.add_argument("--model", required=True)
    p.add_argument("--traces")
    p.add_argument("--only", default=",".join(all_))
    p.add_argument("--epochs", type=int, default=0)
    opt = p.parse_args()
    with tempfile.TemporaryDirectory() as work:
        b = Bench(opt, work)
        for name in re.split(",", opt.only):
            if name not in all_:
                sys.exit(f"no {name}; there are {', '.join(all_)}")
            all_[name](b)
        return 1 if b.missed else 0


if __name__ == "__main__":
    sys.exit(main())
