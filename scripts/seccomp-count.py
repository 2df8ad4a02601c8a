"""Which lines of the policies were executed, from what strace has recorded.

usage: seccomp-count.py FOLDER_OF_THE_POLICIES FOLDER_OF_THE_LOGS

Prints a table, writes executed.txt beside the policies, and ends with 1 when a line was never executed and does not say in `unseen`
why the tests cannot. A call counts from when the process has set its list of allowed calls; of its threads and children, too.
"""

import collections
import json
import pathlib
import platform
import re
import sys

ALLOWED = ["common.json", "libraries.json", "nodeseald.json"]
WHO = ["nodeseald", "nodeseal-sealer", "probes"]
LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((.*)")
RESULT = re.compile(r"\) += (0x[0-9a-f]+|\d+)$")
# The filter of allowed calls answers ENOSYS to the rest; the other one lets them pass.
LISTS = "SECCOMP_RET_ERRNO|0x26"


def key(line):
    """As src/sandbox/seccomp.rs spells it."""
    words = [line["syscall"]]
    for argument in line.get("args", []):
        mask = f"&{argument['op']['masked_eq']}" if isinstance(argument["op"], dict) else ""
        words.append(f"{argument['index']}{mask}={argument['val']}")
    return " ".join(words)


def fits(line, arguments):
    for argument in line.get("args", []):
        value = int(arguments[argument["index"]], 0) & 0xFFFFFFFF
        if isinstance(argument["op"], dict):
            value &= argument["op"]["masked_eq"]
        if value != argument["val"]:
            return False
    return True


class Log:
    """One file of strace, which is one tree of processes. `state` is what holds for each thread: its program, and its list."""

    def __init__(self, path, found):
        self.found, self.state, self.waiting = found, {}, collections.defaultdict(list)
        # Of a tree, the first is nobody's child.
        self.first, self.name = None, path.name.split(".")[0]
        with path.open(errors="replace") as lines:
            for line in lines:
                thread, rest = LINE.match(line.rstrip("\n")).groups()
                self.line(int(thread), rest)

    def line(self, thread, rest):
        if self.first is None:
            self.first = thread
            self.state[thread] = (self.name, None)
        # Its first calls may stand before the line that says whose thread it is.
        if thread not in self.state:
            self.waiting[thread].append(rest)
            return
        if rest.startswith("+++"):
            del self.state[thread]
            return
        resumed = rest.startswith("<...")
        call = None if resumed else CALL.match(rest)
        if call:
            self.call(thread, call.group(1), call.group(2))
        if re.match(r"(<\.\.\. )?(clone3?|v?fork)\b", rest) and (result := RESULT.search(rest)):
            child = int(result.group(1), 0)
            self.state[child] = self.state[thread]
            for held in self.waiting.pop(child, []):
                self.line(child, held)

    def call(self, thread, name, arguments):
        program, allowed = self.state[thread]
        if name == "execve":
            if path := re.match(r'"([^"]*)"', arguments):
                base = path.group(1).rsplit("/", 1)[-1]
                self.state[thread] = (base if base in WHO else program, allowed)
        if allowed is not None:
            self.found.count(program, allowed, name, arguments.split(" <unfinished")[0].rsplit(") ", 1)[0].rstrip(")").split(", "))
        if name == "seccomp" and LISTS in arguments:
            self.state[thread] = (program, hash(arguments.rsplit("})", 1)[0]))


class Found:
    def __init__(self, folder):
        self.lines = [(file, line) for file in ALLOWED for line in json.loads((folder / file).read_text())]
        self.lines = [(file, line) for file, line in self.lines if line.get("only", platform.machine()) == platform.machine()]
        self.by_name = collections.defaultdict(list)
        for file, line in self.lines:
            self.by_name[line["syscall"]].append((file, line))
        self.counts, self.refused, self.lists = collections.Counter(), collections.Counter(), {}

    def count(self, program, allowed, name, arguments):
        if program != "probes":
            self.lists.setdefault(allowed, program)
        owner = self.lists.get(allowed)
        files = {"nodeseald": ALLOWED[::2], "nodeseal-sealer": ALLOWED[:2]}.get(owner, ALLOWED[::2])
        hits = [line for file, line in self.by_name[name] if file in files and fits(line, arguments)]
        for line in hits:
            self.counts[key(line), program] += 1
        if not hits:
            self.refused[name, program] += 1


def main(folder, logs):
    found = Found(folder)
    paths = sorted(logs.iterdir(), key=lambda path: path.name == "probes")
    for path in paths:
        Log(path, found)
    print(f"{len(paths)} logs; calls once the filter is in force")
    print(f"{'file':14} {'rule':34} {'nodeseald':>10} {'sealer':>10} {'probes':>10}")
    never, record = [], []
    for file, line in found.lines:
        rule = key(line)
        counts = [found.counts[rule, who] for who in WHO]
        seen = [who for who, count in zip(WHO, counts) if count]
        note = "" if seen else f"never: {line['unseen']}" if "unseen" in line else "NEVER"
        print(f"{file:14} {rule:34} {counts[0]:10} {counts[1]:10} {counts[2]:10}  {note}".rstrip())
        # What some machines alone execute is not written down, so that the record is the same on all.
        if "unseen" in line:
            continue
        if seen:
            record.append(f"{rule}: {', '.join(seen)}\n")
        else:
            never.append(rule)
    for (name, program), count in sorted(found.refused.items()):
        print(f"refused        {name:34} {program} {count}")
    head = f"# Written by `make seccomp` on {platform.machine()}: the lines of the policies that the tests executed, and in which program.\n"
    (folder / "executed.txt").write_text(head + "".join(sorted(record)))
    return 1 if never else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
