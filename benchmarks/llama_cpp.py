#!/usr/bin/env python3
"""Trimtab and llama.cpp side by side on this machine.

Builds llama.cpp for this CPU from the source package of `llama-cpp-python` (PyPI), makes its best files from the one
that Trimtab runs, looks for llama.cpp's best setting for each row, then measures both in turn and prints the ratios.
Knows nothing of Trimtab's inside: it reads `trimtab bench ... --json`. README.md says what each row means.

    python3 benchmarks/llama_cpp.py                       # everything; about half an hour on 2 cores
    python3 benchmarks/llama_cpp.py --skip-trimtab        # llama.cpp alone
    python3 benchmarks/llama_cpp.py --rounds 1 --quick    # a look, not a measurement
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import threading
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "llama-cpp-python==0.3.36"
TOOLS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-simple"]
# The published file comes first; the others are made from it through F32, so all hold the same weights.
FILES = ["published", "Q4_0", "Q8_0", "BF16", "F32"]
DECODE_BATCHES = [1, 8, 32]
PROMPT, NEW, PREFILL = 128, 64, 512
BON_PROMPT, BON_CANDIDATES, BON_NEW = 2048, 16, 128
# Ratio that the project demands of each row, and the one it aims for.
GOALS = {
    "prefill 512": (1.2, 1.5),
    "decode, batch 1": (0.8, 1.0),
    "decode, batch 8": (2.0, 3.0),
    "decode, batch 32": (3.0, 4.0),
    "best-of-16": (2.0, None),
}


def main():
    args = parse_args()
    work = pathlib.Path(args.work).resolve()
    bin_dir = pathlib.Path(args.llama_bin) if args.llama_bin else build_llama(work)
    trimtab = None if args.skip_trimtab else trimtab_binary(args)
    model = model_path(args, trimtab)
    files = quantised_files(bin_dir, model, work / "models")
    runner = LlamaRunner(bin_dir, files, args.threads)

    best = screen(runner, args.quick)
    results = measure(runner, best, trimtab, model, args)
    results["machine"] = machine()
    results["llama_cpp"] = PACKAGE
    results["date"] = datetime.date.today().isoformat()
    table = markdown(results)
    print("\n" + table)
    out = pathlib.Path(args.out) if args.out else work / "results"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(table + "\n")
    log(f"wrote {out.with_suffix('.json')} and {out.with_suffix('.md')}")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="alias or GGUF file (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="int8", help="Trimtab's (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="each number is the median of so many (default: 5)")
    parser.add_argument("--quick", action="store_true", help="try only Q4_0 with flash attention, the usual winner")
    parser.add_argument("--skip-trimtab", action="store_true", help="measure llama.cpp alone; needs a GGUF --model")
    parser.add_argument("--trimtab", help="the program (default: built here with cargo build --release)")
    parser.add_argument("--llama-bin", help="folder with llama.cpp's tools (default: built from PyPI's source)")
    parser.add_argument("--work", default=REPO / "target" / "llama_cpp", help="builds and models (default: target/llama_cpp here)")
    parser.add_argument("--out", help="results without suffix (default: WORK/results)")
    return parser.parse_args()


def log(message):
    print(message, file=sys.stderr, flush=True)


def run(command, **options):
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


# Preparing: the programs and the files


def build_llama(work):
    """Builds llama.cpp as its own documents advise for one machine: Release, native instructions, OpenMP."""
    bin_dir = work / "bin"
    if all((bin_dir / tool).exists() for tool in TOOLS):
        return bin_dir
    log(f"building llama.cpp from {PACKAGE} (10 to 15 minutes on 2 cores) ...")
    venv = work / "venv"
    run([sys.executable, "-m", "venv", venv])
    pip = [venv / "bin" / "python", "-m", "pip", "--quiet"]
    run(pip + ["install", "cmake", "ninja", "scikit-build-core"])
    download = ["download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", work, PACKAGE]
    run(pip + download, env={**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"})
    (archive,) = work.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    source = work / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    build = work / "build"
    off = ["LLAMA_BUILD_TESTS", "LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP", "LLAMA_OPENSSL", "LLAMA_USE_PREBUILT_UI"]
    env = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"]
    options += [f"-D{name}=OFF" for name in off]
    run(["cmake", "-S", source, "-B", build, "-G", "Ninja", *options], env=env)
    run(["ninja", "-C", build, *TOOLS], env=env)
    bin_dir.mkdir(exist_ok=True)
    for tool in TOOLS:
        shutil.copy2(build / "bin" / tool, bin_dir / tool)
    return bin_dir


def trimtab_binary(args):
    if args.trimtab:
        return pathlib.Path(args.trimtab).resolve()
    log("building trimtab ...")
    subprocess.run(["cargo", "build", "--release", "--locked", "--package", "trimtab-cli"], cwd=REPO, check=True)
    return REPO / "target" / "release" / "trimtab"


def model_path(args, trimtab):
    if pathlib.Path(args.model).exists():
        return pathlib.Path(args.model).resolve()
    if trimtab is None:
        sys.exit("--skip-trimtab needs --model FILE.gguf")
    subprocess.run([trimtab, "models", "get", args.model], check=True, stdout=sys.stderr)
    return pathlib.Path(run([trimtab, "models", "path", args.model]).strip())


def quantised_files(bin_dir, model, folder):
    """llama.cpp's own files of the same weights. F32 first: every other type is made from it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"published": model, "F32": folder / f"{model.stem}.F32.gguf"}
    if not files["F32"].exists():
        run([bin_dir / "llama-quantize", "--allow-requantize", model, files["F32"], "F32"])
    for kind in FILES[1:-1]:
        files[kind] = folder / f"{model.stem}.{kind}.gguf"
        if not files[kind].exists():
            run([bin_dir / "llama-quantize", "--allow-requantize", files["F32"], files[kind], kind])
    return files


# llama.cpp's side


class Hopeless(Exception):
    """The run took so much longer than the best one that its setting cannot win."""


class LlamaRunner:
    """One measurement of llama.cpp for one setting. A setting is (file, flash attention, unified KV cache)."""

    def __init__(self, bin_dir, files, threads):
        self.bin_dir, self.files, self.threads = bin_dir, files, threads
        self.patience = None  # seconds until a run counts as hopeless; None waits for ever

    def prefill(self, setting):
        """Tokens per second over a prompt of PREFILL tokens, after llama-bench's own warm-up run."""
        file, flash, _ = setting
        command = ["llama-bench", "-m", self.files[file], "-t", self.threads, "-p", PREFILL, "-n", 0, "-r", 1]
        out, peak = self._run(command + ["-fa", int(flash), "-o", "json"])
        return json.loads(out)[0]["avg_ts"], peak

    def decode(self, setting, batch):
        """Tokens per second of all candidates together; their prompt is computed once and shared (-pps)."""
        row, peak = self._batched(setting, PROMPT, NEW, batch)
        return row["speed_tg"], peak

    def best_of_n(self, setting):
        """Requests per second: prompt once, then all candidates. Without sampling and text, which Trimtab does."""
        row, peak = self._batched(setting, BON_PROMPT, BON_NEW, BON_CANDIDATES)
        return 1.0 / row["t"], peak

    def load_to_first_token(self, setting):
        """Seconds from starting the process to the end of a one-token answer."""
        env = {**os.environ, "OMP_THREAD_LIMIT": str(self.threads)}
        start = time.perf_counter()
        run([self.bin_dir / "llama-simple", "-m", self.files[setting[0]], "-n", 1, "Hello"], env=env)
        return time.perf_counter() - start

    def _batched(self, setting, prompt, new, batch):
        file, flash, unified = setting
        # The smallest context that fits, so that memory is not held against llama.cpp without need.
        context = prompt + batch * new if unified else batch * (prompt + new)
        # A sequence's share is rounded up to a multiple of 256 inside, so the sum is too.
        context = -(-context // (256 * batch)) * 256 * batch
        command = ["llama-batched-bench", "-m", self.files[file], "-c", context, "-b", 2048, "-ub", 512]
        command += ["-t", self.threads, "-tb", self.threads, "-fa", "on" if flash else "off"]
        command += ["-npp", prompt, "-ntg", new, "-npl", batch, "-pps", "--output-format", "jsonl"]
        out, peak = self._run(command + (["--kv-unified"] if unified else ["--no-kv-unified"]))
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        if not rows:
            sys.exit(f"llama-batched-bench measured nothing: {command}")
        return rows[0], peak

    def _run(self, command):
        """Standard output, and the most memory that was resident (bytes)."""
        command = [str(self.bin_dir / command[0]), *map(str, command[1:])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        killer = threading.Timer(self.patience or threading.TIMEOUT_MAX, process.kill)
        killer.start()
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == -signal.SIGKILL and self.patience:
            raise Hopeless
        if process.returncode != 0:
            sys.exit(f"failed with {process.returncode}: {' '.join(command)}")
        return out, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def llama_rows(runner):
    """Name of each row -> function from a setting to (speed, peak bytes). Greater is better."""
    rows = {f"prefill {PREFILL}": runner.prefill}
    for batch in DECODE_BATCHES:
        rows[f"decode, batch {batch}"] = lambda setting, batch=batch: runner.decode(setting, batch)
    rows[f"best-of-{BON_CANDIDATES}"] = runner.best_of_n
    return rows


def screen(runner, quick):
    """The two best settings for each row after one run of every setting: the second guards against noise."""
    best = {}
    for name, measure_row in llama_rows(runner).items():
        settings = list(itertools.product(FILES, [True, False], [True, False]))
        if name.startswith("prefill") or name.endswith("batch 1"):
            settings = [setting for setting in settings if setting[2]]
        if quick:
            settings = [setting for setting in settings if setting[0] == "Q4_0" and setting[1]]
        speeds = {}
        for setting in settings:
            try:
                start = time.perf_counter()
                speeds[setting] = measure_row(setting)[0]
                elapsed = time.perf_counter() - start
            except Hopeless:
                log(f"screening {name}: {describe(setting)} given up after {runner.patience:.0f} s")
                continue
            if speeds[setting] == max(speeds.values()):
                runner.patience = max(20, 2.5 * elapsed)
            log(f"screening {name}: {describe(setting)} {speeds[setting]:.4g}")
        runner.patience = None
        best[name] = sorted(speeds, key=speeds.get, reverse=True)[:2]
    return best


def describe(setting):
    file, flash, unified = setting
    return f"{file}, flash attention {'on' if flash else 'off'}, {'unified' if unified else 'split'} KV"


# Both sides, in turn


def trimtab_round(trimtab, model, threads, precision):
    """One run of every row: (speeds by row, peak bytes, seconds to the first token, the reports as printed)."""
    common = ["--model", model, "--threads", threads, "--precision", precision]
    once = [*common, "--rounds", 1, "--json"]
    batches = ",".join(map(str, DECODE_BATCHES))
    decode = ["bench", "decode", "--batch", batches, "--prompt", PROMPT, "--new", NEW, "--prefill", PREFILL]
    report = json.loads(run([trimtab, *decode, *once]))
    speeds = {f"prefill {PREFILL}": report["prefill_tokens_per_s"]}
    for row in report["decode"]:
        speeds[f"decode, batch {row['batch']}"] = row["tokens_per_s"]
    bon = ["bench", "best-of-n", "--prompt", BON_PROMPT, "--candidates", BON_CANDIDATES, "--new", BON_NEW]
    bon_report = json.loads(run([trimtab, *bon, *once]))
    speeds[f"best-of-{BON_CANDIDATES}"] = 1.0 / bon_report["seconds"]
    start = time.perf_counter()
    run([trimtab, "generate", *common, "--decode", "greedy", "--max-new-tokens", 1, "Hello"])
    first_token = time.perf_counter() - start
    return speeds, report["peak_rss_bytes"], first_token, [report, bon_report]


def measure(runner, best, trimtab, model, args):
    """Medians over the rounds. Within a round both programs take turns, so that both see the same weather."""
    llama = {name: {setting: [] for setting in settings} for name, settings in best.items()}
    llama_peak, llama_first = {name: {} for name in best}, []
    ours, our_peaks, our_first, reports = {name: [] for name in best}, [], [], []
    for round_idx in range(args.rounds):
        log(f"round {round_idx + 1} of {args.rounds}")
        for name, measure_row in llama_rows(runner).items():
            for setting in best[name]:
                speed, peak = measure_row(setting)
                llama[name][setting].append(speed)
                llama_peak[name][setting] = peak
        llama_first.append(runner.load_to_first_token(best[f"decode, batch {DECODE_BATCHES[-1]}"][0]))
        if trimtab:
            speeds, peak, first, reports = trimtab_round(trimtab, model, args.threads, args.precision)
            for name, speed in speeds.items():
                ours[name].append(speed)
            our_peaks.append(peak)
            our_first.append(first)
    rows = []
    for name, by_setting in llama.items():
        setting = max(by_setting, key=lambda s: statistics.median(by_setting[s]))
        rows.append(row(name, by_setting[setting], describe(setting), llama_peak[name][setting], ours[name]))
    return {
        "threads": args.threads,
        "rounds": args.rounds,
        "precision": args.precision,
        "rows": rows,
        "llama_peak_rss_bytes": max(entry["llama_peak_rss_bytes"] for entry in rows[:-1]),
        "trimtab_peak_rss_bytes": max(our_peaks, default=None),
        "llama_load_to_first_token_s": statistics.median(llama_first),
        "trimtab_load_to_first_token_s": statistics.median(our_first) if our_first else None,
        "trimtab_reports": reports,
    }


def row(name, llama_speeds, setting, peak, our_speeds):
    llama_median = statistics.median(llama_speeds)
    our_median = statistics.median(our_speeds) if our_speeds else None
    return {
        "row": name,
        "unit": "requests/s" if name.startswith("best-of") else "tokens/s",
        "llama": llama_median,
        "llama_runs": llama_speeds,
        "llama_setting": setting,
        "llama_peak_rss_bytes": peak,
        "trimtab": our_median,
        "trimtab_runs": our_speeds,
        "ratio": our_median / llama_median if our_median else None,
    }


# Reporting


def machine():
    """One line that names the CPU; its instructions decide what either program can do."""
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"]
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name", platform.processor() or platform.machine())
    model = " ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{name} ({model}), {os.cpu_count()} CPUs, {' '.join(flag for flag in wanted if flag in flags)}"


def markdown(results):
    lines = [
        f"{results['date']}, {results['machine']}; {results['threads']} threads, median of {results['rounds']}; "
        f"Trimtab in {results['precision']}; llama.cpp from {results['llama_cpp']}.",
        "",
        "| what | llama.cpp | its best setting | Trimtab | ratio | required | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in results["rows"]:
        required, aim = GOALS[entry["row"]]
        ratio = f"**{entry['ratio']:.2f}x**" if entry["ratio"] else "–"
        goals = f"{required}x | {f'{aim}x' if aim else '–'}"
        lines.append(
            f"| {entry['row']} | {quantity(entry, 'llama')} | {entry['llama_setting']} "
            f"| {quantity(entry, 'trimtab')} | {ratio} | {goals} |"
        )
    theirs, ours = results["llama_peak_rss_bytes"], results["trimtab_peak_rss_bytes"]
    ratio = f"**{ours / theirs:.2f}x**" if ours else "–"
    ours = f"{ours / 1e6:.0f} MB" if ours else "–"
    lines.append(f"| peak memory | {theirs / 1e6:.0f} MB | the rows above but best-of-16 | {ours} | {ratio} | <= 1.3x | – |")
    theirs, ours = results["llama_load_to_first_token_s"], results["trimtab_load_to_first_token_s"]
    ours = f"{ours:.2f} s" if ours else "–"
    lines.append(f"| load to first token | {theirs:.2f} s | as for batch 32 | {ours} | – | < 1 s | – |")
    return "\n".join(lines)


def quantity(entry, side):
    value = entry[side]
    if value is None:
        return "–"
    return f"{1 / value:.2f} s" if entry["unit"] == "requests/s" else f"{value:.0f} tokens/s"


if __name__ == "__main__":
    main()
