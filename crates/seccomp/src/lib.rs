//! `linux.seccomp` as a program for the kernel (runtime-spec, config-linux.md, "Seccomp"; seccomp(2)). It is compiled
//! here, in microseconds: for each architecture a binary tree over the numbers of system calls, with the arguments'
//! tests at its leaves.

#![forbid(unsafe_code)]

mod bpf;
#[cfg(test)]
#[path = "../tests/machine/mod.rs"]
mod machine;
mod profile;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

pub use bpf::{ArgumentComparison, FilterProgram, Leaf, Section, Test};
pub use profile::{Profile, SyscallArgument, SyscallRule};

/// A compiled filter.
#[derive(Debug)]
pub struct Filter {
    /// `struct sock_filter`s, eight bytes each.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
    /// Who hears of calls that are to be decided outside: socket and metadata.
    pub listener: Option<(PathBuf, String)>,
}

/// Each flag and its bit.
const FLAGS: [(&str, u64); 4] = [
    // One thread has nobody to synchronise with.
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32),
];
const SPEC_ALLOW: u64 = 4;
const NEW_LISTENER: u64 = 8;

/// The answer that lets a call happen.
pub const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x5_0000;
const KILL_THREAD: u32 = 0;
const X32_BIT: u32 = 0x4000_0000;

/// An architecture: its name in config.json, the kernel's number (linux/audit.h), and its column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Architecture {
    name: &'static str,
    audit: u32,
    column: usize,
    bit: u32,
}

const ARCHITECTURES: [Architecture; 5] = [
    Architecture { name: "SCMP_ARCH_X86_64", audit: 0xc000_003e, column: 0, bit: 0 },
    Architecture { name: "SCMP_ARCH_X86", audit: 0x4000_0003, column: 1, bit: 0 },
    Architecture { name: "SCMP_ARCH_X32", audit: 0xc000_003e, column: 2, bit: X32_BIT },
    Architecture { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, column: 3, bit: 0 },
    Architecture { name: "SCMP_ARCH_ARM", audit: 0x4000_0028, column: 4, bit: 0 },
];
const OWN: usize = if cfg!(target_arch = "aarch64") { 3 } else { 0 };

/// This processor's architecture, as the kernel's audit numbers it.
pub const NATIVE: u32 = ARCHITECTURES[OWN].audit;

/// Compiles a filter.
pub fn compile(profile: &Profile) -> anyhow::Result<Filter> {
    compile_for(&ARCHITECTURES[OWN], profile)
}

fn compile_for(native: &Architecture, profile: &Profile) -> anyhow::Result<Filter> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    ensure!(default != NOTIFY, "SCMP_ACT_NOTIFY cannot be used as default action");
    // Another processor's programs cannot run here, but older ones of 32 bits.
    let runs =
        |one: &&Architecture| one.audit == native.audit || matches!((native.column, one.column), (0, 1) | (3, 4));
    let named = |name: &String| ARCHITECTURES.iter().find(|one| one.name == name.as_str());
    let mut wanted = vec![native];
    wanted.extend(profile.architectures.iter().filter_map(named).filter(runs));
    wanted.sort_by_key(|one| one.column);
    wanted.dedup();
    let rules: Vec<Rule> = profile.syscalls.iter().map(rule).collect::<anyhow::Result<_>>()?;
    let mut notifies = default == NOTIFY;
    let mut sections = Vec::new();
    for one in wanted {
        let leaves = leaves(&rules, *one, default);
        notifies |= leaves.values().any(Leaf::notifies);
        sections.push((one.audit, one.bit, leaves));
    }
    let program = FilterProgram::compile(&sections, default, stub(default), KILL_THREAD);
    Ok(Filter { program: program.bytes()?, flags: flags(profile, notifies)?, listener: listener(profile, notifies)? })
}

/// What calls get that are newer than every one the profile names: programs then fall back to older ones.
fn stub(default: u32) -> Option<u32> {
    let no_such_call = errno(libc::ENOSYS);
    let refuses =
        default & 0xffff_0000 == ERRNO || default == KILL_THREAD || default == 0x8000_0000 || default == 0x3_0000;
    (refuses && default != no_such_call).then_some(no_such_call)
}

fn flags(profile: &Profile, notifies: bool) -> anyhow::Result<u64> {
    // Mitigations of speculation that every filter would switch on are left as they are unless it says, as runc does.
    let mut flags = if notifies { NEW_LISTENER } else { 0 };
    let Some(named) = &profile.flags else { return Ok(flags | SPEC_ALLOW) };
    for flag in named {
        let known = FLAGS.iter().find(|(name, _)| name == flag);
        flags |= known.with_context(|| format!("seccomp flag {flag:?} is not known"))?.1;
    }
    Ok(flags)
}

fn listener(profile: &Profile, notifies: bool) -> anyhow::Result<Option<(PathBuf, String)>> {
    if !notifies {
        return Ok(None);
    }
    ensure!(!profile.listener_path.as_os_str().is_empty(), "seccomp: SCMP_ACT_NOTIFY needs a listenerPath");
    Ok(Some((profile.listener_path.clone(), profile.listener_metadata.clone())))
}

/// A rule of the configuration, with the numbers of its calls on all architectures.
struct Rule {
    calls: Vec<&'static [i32; ARCHITECTURES.len()]>,
    tests: Vec<Vec<Test>>,
    action: u32,
}

/// Names without a number are left out, as libseccomp's users do.
fn rule(rule: &SyscallRule) -> anyhow::Result<Rule> {
    let action = action(&rule.action, rule.errno_ret)?;
    let listens = action == NOTIFY && rule.names.iter().any(|name| name == "write");
    ensure!(!listens, "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    let calls = rule.names.iter().filter_map(|name| numbers(name)).collect();
    Ok(Rule { calls, tests: tests(&rule.args)?, action })
}

/// Sorts the rules by the numbers of their calls.
fn leaves(rules: &[Rule], architecture: Architecture, default: u32) -> BTreeMap<u32, Leaf> {
    let mut leaves: BTreeMap<u32, Leaf> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.action != default) {
        for number in rule.calls.iter().filter_map(|numbers| u32::try_from(numbers[architecture.column]).ok()) {
            let leaf =
                leaves.entry(number | architecture.bit).or_insert_with(|| Leaf { rules: Vec::new(), action: None });
            if rule.tests.is_empty() {
                leaf.action.get_or_insert(rule.action);
            } else {
                leaf.rules.extend(rule.tests.iter().map(|tests| (tests.clone(), rule.action)));
            }
        }
    }
    for leaf in leaves.values_mut() {
        leaf.rules.retain(|(_, action)| leaf.action != Some(*action));
    }
    leaves
}

/// Returns the number that this processor's programs call by a name.
pub fn number(name: &str) -> Option<u32> {
    u32::try_from(numbers(name)?[ARCHITECTURES[OWN].column]).ok()
}

fn numbers(name: &str) -> Option<&'static [i32; ARCHITECTURES.len()]> {
    let at = table::NUMBERS.binary_search_by_key(&name, |(known, _)| known).ok()?;
    table::NUMBERS.get(at).map(|(_, numbers)| numbers)
}

/// All tests of a rule must hold, except that several of one argument are alternatives.
fn tests(arguments: &[SyscallArgument]) -> anyhow::Result<Vec<Vec<Test>>> {
    let tests: Vec<Test> = arguments.iter().map(test).collect::<anyhow::Result<_>>()?;
    let twice =
        tests.iter().enumerate().any(|(at, test)| tests[..at].iter().any(|other| other.argument == test.argument));
    Ok(match (tests.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, true) => tests.into_iter().map(|test| vec![test]).collect(),
        (false, false) => vec![tests],
    })
}

fn test(argument: &SyscallArgument) -> anyhow::Result<Test> {
    ensure!(argument.index < 6, "seccomp: argument {} does not exist", argument.index);
    let (comparison, negated) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (ArgumentComparison::Equal, false),
        "SCMP_CMP_NE" => (ArgumentComparison::Equal, true),
        "SCMP_CMP_GT" => (ArgumentComparison::Greater, false),
        "SCMP_CMP_LE" => (ArgumentComparison::Greater, true),
        "SCMP_CMP_GE" => (ArgumentComparison::GreaterOrEqual, false),
        "SCMP_CMP_LT" => (ArgumentComparison::GreaterOrEqual, true),
        "SCMP_CMP_MASKED_EQ" => (ArgumentComparison::Masked(argument.value), false),
        other => bail!("seccomp: invalid operator {other:?}"),
    };
    let value = if let ArgumentComparison::Masked(_) = comparison { argument.value_two } else { argument.value };
    Ok(Test { argument: argument.index, comparison, value, negated })
}

fn action(name: &str, errno: Option<u32>) -> anyhow::Result<u32> {
    let takes_errno = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    ensure!(takes_errno || errno.is_none_or(|errno| errno == 0), "seccomp: action {name} has no errnoRet");
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
    ensure!(errno <= 0xfff || name == "SCMP_ACT_TRACE" && errno <= 0xffff, "seccomp: errnoRet {errno} is too great");
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        "SCMP_ACT_ERRNO" => ERRNO | errno,
        "SCMP_ACT_TRAP" => 0x3_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        other => bail!("seccomp: invalid action {other:?}"),
    })
}

/// Returns the answer that has a call fail.
pub const fn errno(number: i32) -> u32 {
    ERRNO | number.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::machine::answer;
    use super::*;

    fn compile_json(json: &str) -> Filter {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    const PERM: u32 = ERRNO | 1;
    const NOSYS: u32 = ERRNO | 0x26;

    fn number(name: &str, column: usize) -> Option<u32> {
        numbers(name).and_then(|numbers| u32::try_from(numbers[column]).ok())
    }

    #[test]
    fn the_table_is_sorted_and_right() {
        assert!(table::NUMBERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, numbers) in [
            ("read", [0, 3, 0, 63, 3]),
            ("execve", [59, 11, 520, 221, 11]),
            ("clone3", [435; 5]),
            ("openat2", [437; 5]),
        ] {
            for (column, want) in numbers.into_iter().enumerate() {
                assert_eq!(number(name, column), Some(want), "{name} {column}");
            }
        }
        assert_eq!((number("open", 3), number("nonsense", 0)), (None, None));
        // ARM's private calls, of which a program's start needs one.
        assert_eq!((number("set_tls", 3), number("set_tls", 4)), (None, Some(0xf_0005)));
    }

    #[test]
    fn each_call_gets_its_action() {
        let filter = compile_json(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
            {"names":["read","write","nonsense","mkdir"],"action":"SCMP_ACT_ALLOW"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":131072,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        );
        for (arch, call, argument, want) in [
            (X86_64, 0, 0, ALLOW),
            (X86_64, 1, 0, ALLOW),
            (X86_64, 2, 0, PERM),
            (X86_64, 62, 0, 0x8000_0000),
            (X86_64, 435, 0, NOSYS),
            (X86_64, 436, 0, NOSYS),
            (X86_64, 135, 8, ALLOW),
            (X86_64, 135, 131_072, ALLOW),
            (X86_64, 135, 1 << 32 | 8, PERM),
            (X86_64, 56, 0x11, ALLOW),
            (X86_64, 56, 0x2000_0011, PERM),
            (X86_64, X32_BIT, 0, ALLOW),
            (X86_64, X32_BIT | 2, 0, PERM),
            (I386, 3, 0, ALLOW),
            (I386, 5, 0, PERM),
            (I386, 39, 0, ALLOW),
            (0xc000_00b7, 63, 0, KILL_THREAD),
        ] {
            assert_eq!(
                answer(&filter.program, arch, call, [argument; 6]),
                Some(want),
                "{arch:#x} {call} {argument:#x}"
            );
        }
    }

    #[test]
    fn on_64_bit_arm_programs_of_32_bits_run_where_they_are_named() {
        let compile = |architectures: &str| {
            let profile = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":[{architectures}],"syscalls":[
                {{"names":["read","set_tls"],"action":"SCMP_ACT_ALLOW"}}]}}"#
            );
            compile_for(&ARCHITECTURES[3], &serde_json::from_str(&profile).unwrap()).unwrap().program
        };
        let named = compile(r#""SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64","SCMP_ARCH_ARM""#);
        for (arch, call, want, alone) in [
            (0xc000_00b7, 63, ALLOW, ALLOW),
            (0xc000_00b7, 3, PERM, PERM),
            (0x4000_0028, 3, ALLOW, KILL_THREAD),
            (0x4000_0028, 63, PERM, KILL_THREAD),
            (0x4000_0028, 0xf_0005, ALLOW, KILL_THREAD),
            (X86_64, 0, KILL_THREAD, KILL_THREAD),
        ] {
            assert_eq!(answer(&named, arch, call, [0; 6]), Some(want), "{arch:#x} {call}");
            assert_eq!(answer(&compile(""), arch, call, [0; 6]), Some(alone), "{arch:#x} {call} alone");
        }
    }

    #[test]
    fn every_operator_compares_64_bits() {
        const HIGH: u64 = 5 << 32 | 7;
        for (operator, yes, no) in [
            ("EQ", vec![HIGH], vec![HIGH + 1, 7, 6 << 32 | 7]),
            ("NE", vec![HIGH + 1, 7], vec![HIGH]),
            ("GT", vec![HIGH + 1, 6 << 32], vec![HIGH, 4 << 32 | 9, 9]),
            ("GE", vec![HIGH, HIGH + 1, 6 << 32], vec![HIGH - 1, 4 << 32 | 9]),
            ("LT", vec![HIGH - 1, 4 << 32 | 9], vec![HIGH, 6 << 32]),
            ("LE", vec![HIGH, HIGH - 1, 9], vec![HIGH + 1, 6 << 32]),
        ] {
            let filter = compile_json(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_LOG","args":[{{"index":3,"value":{HIGH},"op":"SCMP_CMP_{operator}"}}]}}]}}"#
            ));
            for (values, want) in [(yes, 0x7ffc_0000), (no, ALLOW)] {
                for value in values {
                    assert_eq!(
                        answer(&filter.program, X86_64, 0, [0, 0, 0, value, 0, 0]),
                        Some(want),
                        "{operator} {value:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_flags_are_other_than_an_empty_list() {
        for (flags, want) in [
            ("", SPEC_ALLOW),
            (r#""flags":null,"#, SPEC_ALLOW),
            (r#""flags":[],"#, 0),
            (r#""flags":["SECCOMP_FILTER_FLAG_TSYNC"],"#, 0),
            (r#""flags":["SECCOMP_FILTER_FLAG_LOG"],"#, 2),
        ] {
            let filter = compile_json(&format!(r#"{{{flags}"defaultAction":"SCMP_ACT_ALLOW"}}"#));
            assert_eq!(filter.flags, want, "{flags}");
        }
    }

    #[test]
    fn a_thousand_rules_fit_for_all_numberings() {
        let rules = |args: &dyn Fn(u64) -> String| {
            let rule = |at| {
                format!(
                    r#"{{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":{},"args":[{}]}}"#,
                    at % 90 + 1,
                    args(at)
                )
            };
            let rules: Vec<String> = (0..1000).map(rule).collect();
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{}]}}"#,
                rules.join(",")
            )
        };
        let test = |index: u32, op: &str, value: u64, two: u64| {
            format!(r#"{{"index":{index},"op":"SCMP_CMP_{op}","value":{value},"valueTwo":{two}}}"#)
        };
        let one = compile_json(&rules(&|at| test(1, "EQ", at, 0)));
        let two = compile_json(&rules(&|at| test(0, "EQ", 7, 0) + "," + &test(1, "EQ", at, 0)));
        let masked = compile_json(&rules(&|at| test(1, "MASKED_EQ", 0xfff, at)));
        for at in 0..1000_u32 {
            let want = Some(ERRNO | (at % 90 + 1));
            let arguments = [7, at.into(), 0, 0, 0, 0];
            for (filter, name) in [(&one, "one"), (&two, "two"), (&masked, "masked")] {
                assert_eq!(answer(&filter.program, X86_64, 16, arguments), want, "{name} {at}");
                assert_eq!(answer(&filter.program, 0x4000_0003, 54, arguments), want, "{name} {at} on x86");
            }
            assert_eq!(answer(&two.program, X86_64, 16, [8, at.into(), 0, 0, 0, 0]), Some(ALLOW), "{at}");
        }
        assert_eq!(answer(&one.program, X86_64, 16, [0, 1000, 0, 0, 0, 0]), Some(ALLOW));
        assert_eq!(answer(&one.program, X86_64, 16, [0, 1 << 32, 0, 0, 0, 0]), Some(ALLOW));
    }

    /// Rules of all kinds, drawn by chance but the same each time, answer what reading them one by one does.
    #[test]
    fn shared_code_answers_as_single_rules_do() {
        const VALUES: [u64; 6] = [0, 1, 2, 1 << 32, 1 << 32 | 1, u64::MAX];
        let mut seed = 1_u64;
        let mut below = |limit: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(seed >> 33).unwrap() % limit
        };
        for _ in 0..300 {
            let rules: Vec<(Vec<Test>, u32)> = (0..below(9))
                .map(|at| {
                    let test = |comparison, negated, argument, value: u32| Test {
                        argument,
                        comparison,
                        value: VALUES[value as usize],
                        negated,
                    };
                    let tests = (0..=below(3)).map(|_| {
                        let comparison = match below(6) {
                            0 => ArgumentComparison::Greater,
                            1 => ArgumentComparison::GreaterOrEqual,
                            2 => ArgumentComparison::Masked(1 << 32 | 3),
                            3 => ArgumentComparison::Masked(3),
                            _ => ArgumentComparison::Equal,
                        };
                        test(comparison, below(5) == 0, below(2), below(6))
                    });
                    (tests.collect(), ERRNO | (at + 1))
                })
                .collect();
            let holds = |test: &Test, arguments: &[u64; 6]| {
                let argument = arguments[test.argument as usize];
                test.negated
                    != match test.comparison {
                        ArgumentComparison::Equal => argument == test.value,
                        ArgumentComparison::Greater => argument > test.value,
                        ArgumentComparison::GreaterOrEqual => argument >= test.value,
                        ArgumentComparison::Masked(mask) => argument & mask == test.value,
                    }
            };
            let leaf = Leaf { rules: rules.clone(), action: Some(ALLOW) };
            let sections = [
                (X86_64, 0, BTreeMap::from([(5, leaf.clone())])),
                (X86_64, X32_BIT, BTreeMap::from([(7 | X32_BIT, leaf)])),
            ];
            let program = FilterProgram::compile(&sections, ALLOW, None, KILL_THREAD).bytes().unwrap();
            for first in VALUES {
                for second in VALUES {
                    let arguments = [first, second, 0, 0, 0, 0];
                    let first_that_holds =
                        rules.iter().find(|(tests, _)| tests.iter().all(|test| holds(test, &arguments)));
                    let want = Some(first_that_holds.map_or(ALLOW, |(_, action)| *action));
                    for number in [5, 7 | X32_BIT] {
                        assert_eq!(answer(&program, X86_64, number, arguments), want, "{rules:?} {arguments:x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"{"defaultAction":"SCMP_ACT_NONE"}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(compile(&serde_json::from_str(json).unwrap()).is_err(), "{json}");
        }
    }
}
