//! Which devices a container may open: `devices.allow` and `devices.deny` of cgroup v1, a program of the kernel's
//! virtual machine on v2 (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::path::Path;

use anyhow::{Context, bail};

use crate::resources::DeviceRule;

/// What every container may use, whatever its rules deny first: making any node, and the devices of
/// runtime-spec, config-linux.md, "Default Devices".
pub fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow: true,
        kind: kind.into(),
        major,
        minor,
        access: access.into(),
    };
    let mut rules = vec![rule("c", None, None, "m"), rule("b", None, None, "m")];
    // null, random, full, tty, zero, urandom, the terminals of /dev/pts, ptmx
    for (major, minor) in
        [(1, Some(3)), (1, Some(8)), (1, Some(7)), (5, Some(0)), (1, Some(5)), (1, Some(9)), (136, None), (5, Some(2))]
    {
        rules.push(rule("c", Some(major), minor, "rwm"));
    }
    rules
}

/// A rule checked: where it has no type or number it is for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// # Errors
/// An unknown type or letter: a rule that was dropped for it would open or close more than was said.
fn parse(rule: &DeviceRule) -> anyhow::Result<Rule> {
    let kind = match rule.kind.as_str() {
        "" | "a" => None,
        "c" | "u" => Some(CHARACTER),
        "b" => Some(BLOCK),
        other => bail!("device rule: unknown type {other:?}"),
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).context("device rule: number out of range"),
    };
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            'a' => READ | WRITE | MKNOD,
            other => bail!("device rule: unknown access {other:?}"),
        };
    }
    if access == 0 {
        access = READ | WRITE | MKNOD;
    }
    Ok(Rule { allow: rule.allow, kind, major: number(rule.major)?, minor: number(rule.minor)?, access })
}

/// Turns rules into the lines for cgroup v1: file and value.
pub(super) fn lines(rules: &[DeviceRule]) -> anyhow::Result<Vec<(&'static str, String)>> {
    let parsed: Vec<Rule> = rules.iter().map(parse).collect::<anyhow::Result<_>>()?;
    Ok(parsed.iter().flat_map(line).collect())
}

fn line(rule: &Rule) -> Vec<(&'static str, String)> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].into_iter();
    let access: String = letters.filter_map(|(bit, letter)| (rule.access & bit != 0).then_some(letter)).collect();
    let what = format!("{}:{} {access}", number(rule.major), number(rule.minor));
    // v1 takes `a` as all devices and all access, and does not read the rest of the line (cgroup-v1/devices.rst): "a
    // 8:* r" would allow everything there, as it does with runc.
    match rule.kind {
        None if what == "*:* rwm" => vec![(file, "a".to_owned())],
        None => ['b', 'c'].map(|kind| (file, format!("{kind} {what}"))).to_vec(),
        Some(kind) => vec![(file, format!("{} {what}", if kind == CHARACTER { 'c' } else { 'b' }))],
    }
}

/// Attaches the rules to a cgroup2 directory in place of those attached before.
pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> anyhow::Result<()> {
    let rules: Vec<Rule> = rules.iter().map(parse).collect::<anyhow::Result<_>>()?;
    let cgroup = std::fs::File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    sys::bpf::attach_device_program(&cgroup, &program(&rules)).context("attach the device program")
}

/// Compiles rules: the last one that matches decides; without a match the answer is no. Access that only partly
/// matches a denying rule is denied; an allowing rule must cover it whole.
///
/// Register 0 is the answer, 1 allows. The context is `struct bpf_cgroup_dev_ctx`: `access_type` has the type of the
/// device in its lower half and the access in the upper one.
///
/// Each rule is a block of code that either returns or falls to the next one, and the rules stand in reverse: the
/// last one that matches is asked first.
fn program(rules: &[Rule]) -> Vec<u64> {
    // r1: the context {type and access, major, minor}; r2: type, r3: access, r4: major, r5: minor.
    let mut code = vec![
        insn(0x61, 2, 1, 0, 0),
        insn(0xbc, 3, 2, 0, 0),
        insn(0x54, 2, 0, 0, 0xffff),
        insn(0x74, 3, 0, 0, 16),
        insn(0x61, 4, 1, 4, 0),
        insn(0x61, 5, 1, 8, 0),
    ];
    // What comes before a rule for everything is never asked, and the kernel refuses instructions that nothing reaches.
    let everything = |rule: &Rule| (rule.kind, rule.major, rule.minor, rule.access) == (None, None, None, 7);
    let last = rules.iter().rposition(everything);
    let (otherwise, rules) = last.map_or((false, rules), |at| (rules[at].allow, &rules[at + 1..]));
    for rule in rules.iter().rev() {
        let numbers = [(2, rule.kind), (4, rule.major), (5, rule.minor)].into_iter();
        let tests: Vec<_> = numbers.filter_map(|(register, number)| Some((register, number?))).collect();
        let partial = rule.access != (READ | WRITE | MKNOD);
        let length = tests.len() + if partial { 3 } else { 0 } + 2;
        let mut at = 0;
        for (register, value) in tests {
            // Jump behind the block unless equal.
            code.push(insn(0x56, register, 0, skip(length, at), value));
            at += 1;
        }
        if partial {
            code.push(insn(0xbc, 1, 3, 0, 0));
            let outside = if rule.allow { !rule.access & 7 } else { rule.access };
            code.push(insn(0x54, 1, 0, 0, outside));
            // Allow: nothing outside the rule was asked. Deny: something inside it was.
            code.push(insn(if rule.allow { 0x56 } else { 0x16 }, 1, 0, skip(length, at + 2), 0));
        }
        code.push(insn(0xb4, 0, 0, 0, u32::from(rule.allow)));
        code.push(insn(0x95, 0, 0, 0, 0));
    }
    code.push(insn(0xb4, 0, 0, 0, u32::from(otherwise)));
    code.push(insn(0x95, 0, 0, 0, 0));
    code
}

fn skip(length: usize, at: usize) -> u16 {
    u16::try_from(length - at - 1).unwrap_or(u16::MAX)
}

/// One instruction: operation, destination, source, offset, immediate.
fn insn(operation: u8, destination: u8, source: u8, offset: u16, immediate: u32) -> u64 {
    u64::from(operation)
        | u64::from(source << 4 | destination) << 8
        | u64::from(offset) << 16
        | u64::from(immediate) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executes the few instructions that [`program`] uses.
    fn answer(code: &[u64], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
        let mut r = [0_u64; 6];
        let mut pc = 0;
        loop {
            let [operation, registers, ..] = code[pc].to_le_bytes();
            let (destination, source) = (usize::from(registers & 15), usize::from(registers >> 4));
            let (offset, immediate) = ((code[pc] >> 16 & 0xffff) as usize, code[pc] >> 32);
            pc += 1;
            match operation {
                0x61 => r[destination] = [access << 16 | kind, major, minor][offset / 4],
                0xbc => r[destination] = r[source],
                0x54 => r[destination] &= immediate,
                0x74 => r[destination] >>= immediate,
                0xb4 => r[destination] = immediate,
                0x56 => pc += if r[destination] == immediate { 0 } else { offset },
                0x16 => pc += if r[destination] == immediate { offset } else { 0 },
                0x95 => return r[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let deny_all = DeviceRule { access: "rwm".into(), ..DeviceRule::default() };
        let mut rules = vec![deny_all];
        rules.extend(default_rules());
        rules.push(DeviceRule { allow: true, kind: "b".into(), major: Some(8), minor: None, access: "r".into() });
        let code = program(&rules.iter().map(|rule| parse(rule).unwrap()).collect::<Vec<_>>());
        for (kind, access, major, minor, want) in [
            (2, 2, 1, 3, 1),
            (2, 6, 1, 3, 1),
            (2, 2, 1, 1, 0),
            (2, 1, 1, 1, 1),
            (2, 3, 1, 1, 0),
            (1, 2, 8, 5, 1),
            (1, 4, 8, 5, 0),
            (1, 6, 8, 5, 0),
            (2, 6, 136, 77, 1),
        ] {
            assert_eq!(answer(&code, kind, access, major, minor), want, "{kind} {access} {major}:{minor}");
        }
        // The kernel takes no instruction that cannot be reached.
        let everything = DeviceRule { allow: true, access: "rwm".into(), ..DeviceRule::default() };
        rules.push(everything);
        let code = program(&rules.iter().map(|rule| parse(rule).unwrap()).collect::<Vec<_>>());
        assert_eq!((code.len(), answer(&code, 1, 4, 8, 5)), (8, 1));
    }

    #[test]
    fn v1_lines_are_the_kernel_s() {
        let rules = [
            DeviceRule { access: "rwm".into(), ..DeviceRule::default() },
            DeviceRule { allow: true, kind: "c".into(), major: Some(10), minor: Some(229), access: "rw".into() },
            // The kernel would read no further than the `a`, and allow everything.
            DeviceRule { allow: true, kind: "a".into(), major: Some(8), access: "r".into(), ..DeviceRule::default() },
        ];
        let allow = |line: &str| ("devices.allow", line.to_owned());
        let want = [("devices.deny", "a".to_owned()), allow("c 10:229 rw"), allow("b 8:* r"), allow("c 8:* r")];
        assert_eq!(lines(&rules).unwrap(), want);
    }
}
