"""Which machine the figures are from, and what a process costs."""

import os
import pathlib
import platform
import re
import subprocess
import time


def describe():
    cpu = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    memory_kib = int(re.search(r"^MemTotal:\s*(\d+)", read("/proc/meminfo"), re.MULTILINE)[1])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu[1] if cpu else platform.machine(),
        "memoryBytes": memory_kib * 1024,
        "kernel": platform.release(),
        "loadAverageBefore": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Neighbours:
    """How many cores everything but this run keeps busy: on a shared machine figures by the wall clock suffer."""

    def __init__(self):
        self.start, self.own, self.all = time.monotonic(), cpu_s(os.getpid()), busy_s()

    def cores(self):
        others_s = (busy_s() - self.all) - (cpu_s(os.getpid()) - self.own)
        return max(0.0, others_s / (time.monotonic() - self.start))


def busy_s():
    """CPU seconds of the whole machine, without those that it was idle or waited for a disk."""
    fields = [int(n) for n in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def cpu_s(*roots):
    """CPU seconds of processes, of their children, and of those they have waited for."""
    stats = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = read(f"/proc/{entry}/stat").rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has just ended
            stats[int(entry)] = int(fields[1]), sum(int(n) for n in fields[11:15])
    family, open_ends = set(), set(roots)
    while open_ends:
        family |= open_ends
        open_ends = {pid for pid, (parent, _) in stats.items() if parent in open_ends} - family
    return sum(stats[pid][1] for pid in family if pid in stats) / os.sysconf("SC_CLK_TCK")


def threads_cpu_s(pid):
    """CPU seconds of each thread of a process by its name, and under None those of threads that have ended."""
    used = {None: ticks_s(f"/proc/{pid}/stat")}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, own = (task / "comm").read_text().strip(), ticks_s(task / "stat")
        used[name] = used.get(name, 0) + own
        used[None] -= own
    return used


def ticks_s(stat):
    """CPU seconds that a stat file of /proc tells."""
    fields = read(stat).rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(pids, within_s=120):
    """Waits until the processes rest, or that long; returns the CPU seconds that they used meanwhile."""
    start, before = time.monotonic(), cpu_s(*pids)
    last, quiet_since = before, start
    while time.monotonic() < start + within_s:
        time.sleep(0.5)
        now = cpu_s(*pids)
        if now - last > 0.025:
            quiet_since = time.monotonic()
        last = now
        if time.monotonic() - quiet_since > 10:
            break
    return last - before


def bytes_in(folder, pattern="*"):
    total = 0
    for path in pathlib.Path(folder).rglob(pattern):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except FileNotFoundError:
            pass  # merged away meanwhile
    return total


def version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().split("\n")[0]


def read(path):
    return pathlib.Path(path).read_text()
