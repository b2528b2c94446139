//! What a container's cgroups count, in the shape of `runc events`: what no hierarchy counts is absent. The numbers of v2
//! have the units of v1: times are nanoseconds, and swap is memory and swap together (cgroup-v2.rst, cgroup-v1/*.rst).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Cgroups;

/// One hierarchy's files.
struct Files<'a>(Option<&'a Path>);

impl Files<'_> {
    fn text(&self, name: &str) -> Option<String> {
        sys::file::read(self.0?.join(name)).ok()
    }

    /// A file of one number; `max` is the largest there is.
    fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        if text.trim_end() == "max" { Some(u64::MAX) } else { text.trim_end().parse().ok() }
    }

    /// A file of lines with a name and a number each.
    fn table(&self, name: &str) -> Map<String, Value> {
        let line = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), json!(number.parse::<u64>().ok()?)))
        };
        self.text(name).unwrap_or_default().lines().filter_map(line).collect()
    }

    /// A file of pressure stall information.
    fn pressure(&self, name: &str) -> Option<Value> {
        let text = self.text(name)?;
        let line = |line: &str| {
            let (kind, fields) = line.split_once(' ')?;
            let field = |field: &str| {
                let (name, value) = field.split_once('=')?;
                Some((name.to_owned(), serde_json::from_str::<Value>(value).ok()?))
            };
            Some((kind.to_owned(), fields.split(' ').filter_map(field).collect()))
        };
        Some(Value::Object(text.lines().filter_map(line).collect()))
    }

    /// The sizes of huge pages that are counted, as files name them: `2MB`.
    fn huge_pages(&self, file: &str) -> Vec<String> {
        let names = self.0.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
        let size = |entry: fs::DirEntry| {
            Some(entry.file_name().to_str()?.strip_prefix("hugetlb.")?.strip_suffix(file)?.to_owned())
        };
        names.filter_map(size).filter(|size| !size.contains('.')).collect()
    }
}

/// An object of the members that are there.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, Option<Value>)>) -> Value {
    Value::Object(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn number(number: Option<u64>) -> Option<Value> {
    number.map(Value::from)
}

impl Cgroups {
    /// Reads all that is counted.
    pub fn stats(&self) -> Value {
        json!({
            "cpu": self.cpu_stats(),
            "cpuset": self.cpuset_stats(),
            "memory": self.memory_stats(),
            "pids": self.pids_stats(),
            "blkio": self.block_stats(),
            "hugetlb": self.huge_page_stats(),
        })
    }

    /// Returns the file that tells of processes killed for want of memory, and whether its kernel is told by an eventfd (v1)
    /// or by `POLLPRI`.
    pub fn oom_file(&self) -> Option<(PathBuf, bool)> {
        match self.controller("memory") {
            Some(v1) => Some((v1.join("memory.oom_control"), true)),
            None => Some((self.unified.as_ref()?.join("memory.events"), false)),
        }
    }

    fn files(&self, controller: &str) -> (Files<'_>, bool) {
        match self.controller(controller) {
            Some(v1) => (Files(Some(v1)), true),
            None => (Files(self.unified.as_deref()), false),
        }
    }

    fn cpu_stats(&self) -> Value {
        let (cpu, v1) = self.files("cpu");
        let table = cpu.table("cpu.stat");
        let field = |name: &str, unit: u64| table.get(name).and_then(Value::as_u64).map(|count| json!(count * unit));
        let (throttled, usage) = if v1 {
            (field("throttled_time", 1), Files(self.controller("cpuacct")).v1_cpu_usage())
        } else {
            let usage = [("total", "usage_usec"), ("kernel", "system_usec"), ("user", "user_usec")];
            (field("throttled_usec", 1000), object(usage.map(|(name, file)| (name, field(file, 1000)))))
        };
        let throttling = [
            ("periods", field("nr_periods", 1)),
            ("throttledPeriods", field("nr_throttled", 1)),
            ("throttledTime", throttled),
        ];
        object([
            ("usage", Some(usage)),
            ("throttling", Some(object(throttling))),
            ("psi", Files(self.unified.as_deref()).pressure("cpu.pressure")),
        ])
    }

    fn cpuset_stats(&self) -> Value {
        let (cpuset, _) = self.files("cpuset");
        let list =
            |name: &'static str| (name, cpuset.text(&format!("cpuset.{name}")).map(|list| json!(numbers(&list))));
        // v2 has none of these.
        let flags = "cpu_exclusive mem_hardwall mem_exclusive memory_migrate memory_spread_page memory_spread_slab \
                     memory_pressure sched_load_balance";
        let flags = flags.split(' ').map(|name| (name, number(cpuset.number(&format!("cpuset.{name}")))));
        object([list("cpus"), list("mems")].into_iter().chain(flags))
    }

    fn memory_stats(&self) -> Value {
        let (memory, v1) = self.files("memory");
        let raw = memory.table("memory.stat");
        let cache = raw.get(if v1 { "cache" } else { "file" }).cloned();
        let (usage, swap) = if v1 { memory.v1_memory() } else { memory.v2_memory() };
        let kernel = |name: &str| v1.then(|| memory.v1_counter(name));
        object([
            ("cache", cache),
            ("usage", Some(usage)),
            ("swap", Some(swap)),
            ("kernel", kernel("memory.kmem")),
            ("kernelTCP", kernel("memory.kmem.tcp")),
            ("raw", Some(Value::Object(raw))),
            ("psi", Files(self.unified.as_deref()).pressure("memory.pressure")),
        ])
    }

    fn pids_stats(&self) -> Value {
        let (pids, _) = self.files("pids");
        // runc says 0 for no limit.
        let limit = pids.number("pids.max").map(|limit| if limit == u64::MAX { 0 } else { limit });
        object([("current", number(pids.number("pids.current"))), ("limit", number(limit))])
    }

    fn block_stats(&self) -> Value {
        let (block, v1) = self.files("blkio");
        let psi = Files(self.unified.as_deref()).pressure("io.pressure");
        if v1 {
            let list = |bfq: &str, throttle: &str| {
                let of_bfq = block.text(bfq).map(|text| v1_block_list(&text)).filter(|list| !list.is_empty());
                of_bfq.or_else(|| block.text(throttle).map(|text| v1_block_list(&text))).map(Value::Array)
            };
            let bytes = list("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive");
            let count = list("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive");
            return object([("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", count), ("psi", psi)]);
        }
        let text = block.text("io.stat").unwrap_or_default();
        let list = |ops| Some(Value::Array(v2_block_list(&text, ops)));
        object([
            ("ioServiceBytesRecursive", list([("rbytes", "Read"), ("wbytes", "Write"), ("dbytes", "Discard")])),
            ("ioServicedRecursive", list([("rios", "Read"), ("wios", "Write"), ("dios", "Discard")])),
            ("psi", psi),
        ])
    }

    fn huge_page_stats(&self) -> Value {
        let (pages, v1) = self.files("hugetlb");
        let sizes = pages.huge_pages(if v1 { ".usage_in_bytes" } else { ".current" });
        let count = |size: &String| {
            let file = |name: &str| pages.number(&format!("hugetlb.{size}.{name}"));
            let failed = pages.table(&format!("hugetlb.{size}.events")).get("max").and_then(Value::as_u64);
            let counted = if v1 {
                (file("usage_in_bytes"), file("max_usage_in_bytes"), file("failcnt"))
            } else {
                (file("current"), None, failed)
            };
            let members = [("usage", counted.0), ("max", counted.1), ("failcnt", counted.2)];
            (size.clone(), object(members.map(|(name, value)| (name, number(value)))))
        };
        Value::Object(sizes.iter().map(count).collect())
    }
}

impl Files<'_> {
    fn v1_cpu_usage(&self) -> Value {
        // One tick of user space's clock is 10 ms on every Linux (times(2), USER_HZ).
        let ticks = self.table("cpuacct.stat");
        let time = |name: &str| ticks.get(name).and_then(Value::as_u64).map(|ticks| json!(ticks * 10_000_000));
        let each = self.text("cpuacct.usage_percpu").map(|text| json!(words(&text)));
        // A line for each processor, under titles: its number, time in user space, time in the kernel.
        let all = self.text("cpuacct.usage_all");
        let column = |place: usize| {
            Some(all.as_deref()?.lines().skip(1).filter_map(|row| words(row).get(place).copied()).collect())
        };
        object([
            ("total", number(self.number("cpuacct.usage"))),
            ("percpu", each),
            ("percpu_kernel", column(2)),
            ("percpu_user", column(1)),
            ("kernel", time("system")),
            ("user", time("user")),
        ])
    }

    fn v1_memory(&self) -> (Value, Value) {
        (self.v1_counter("memory"), self.v1_counter("memory.memsw"))
    }

    fn v1_counter(&self, prefix: &str) -> Value {
        let file = |name: &str| number(self.number(&format!("{prefix}.{name}")));
        object([
            ("limit", file("limit_in_bytes")),
            ("usage", file("usage_in_bytes")),
            ("max", file("max_usage_in_bytes")),
            ("failcnt", file("failcnt")),
        ])
    }

    fn v2_memory(&self) -> (Value, Value) {
        let events = |file| number(self.table(file).get("max").and_then(Value::as_u64));
        let file = |name: &str| self.number(name);
        let usage = object([
            ("limit", number(file("memory.max"))),
            ("usage", number(file("memory.current"))),
            ("max", number(file("memory.peak"))),
            ("failcnt", events("memory.events")),
        ]);
        let sum = |memory, swap| number(file(memory).zip(file(swap)).map(|(a, b)| a.saturating_add(b)));
        let swap = object([
            ("limit", sum("memory.max", "memory.swap.max")),
            ("usage", sum("memory.current", "memory.swap.current")),
            ("failcnt", events("memory.swap.events")),
        ]);
        (usage, swap)
    }
}

fn words(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Reads a list of numbers as `0-2,7` (`cpuset(7)`, "List format").
pub(super) fn numbers(list: &str) -> Vec<u16> {
    let range = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(from.parse().ok()?..=to.parse::<u16>().ok()?)
    };
    list.trim_end().split(',').filter_map(range).flatten().collect()
}

/// Reads lines as `8:0 Read 4096`; the sum at the end has no device.
fn v1_block_list(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
        let (op, value) = (words.next()?, words.next()?.parse::<u64>().ok()?);
        Some(json!({"major": major, "minor": minor, "op": op, "value": value}))
    };
    text.lines().filter_map(line).collect()
}

/// Reads lines as `8:0 rbytes=4096 wbytes=0 …`, of which `ops` tells what is wanted, and its name in v1.
fn v2_block_list(text: &str, ops: [(&str, &str); 3]) -> Vec<Value> {
    let line = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
        let field = |field: &str| {
            let (name, value) = field.split_once('=')?;
            let (_, op) = ops.iter().find(|(wanted, _)| *wanted == name)?;
            Some(json!({"major": major, "minor": minor, "op": op, "value": value.parse::<u64>().ok()?}))
        };
        Some(fields.split(' ').filter_map(field).collect::<Vec<_>>())
    };
    text.lines().filter_map(line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_both_forms() {
        assert_eq!(numbers("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(numbers("\n"), [0; 0]);
        let v1 = v1_block_list("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n");
        assert_eq!(v1.len(), 2);
        assert_eq!(v1[0], json!({"major": 8, "minor": 0, "op": "Read", "value": 4096}));
        let v2 =
            v2_block_list("8:0 rbytes=4096 wbytes=1 rios=7\n", [("rbytes", "Read"), ("wbytes", "Write"), ("", "")]);
        assert_eq!(v2, v1);
    }
}
