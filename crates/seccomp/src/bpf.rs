//! The code of a filter. It is written from its end to its beginning, so that every jump, which can only go forward,
//! knows how far it goes.
//!
//! The kernel runs the filter at every system call, so its shape is what a container pays: a binary tree takes nine
//! comparisons for 450 calls, where libseccomp's default asks for one number after the other.
//!
//! A classic BPF jump counts instructions forward, in eight bits where it is conditional. Loads are 32 bits wide, so
//! an argument of 64 bits is two tests, the upper half first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

/// What happens to one system call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// In their order: the first whose tests all hold decides.
    pub rules: Vec<(Vec<Test>, u32)>,
    /// Otherwise this, or the filter's default.
    pub action: Option<u32>,
}

impl Leaf {
    pub(super) fn notifies(&self) -> bool {
        self.action == Some(super::NOTIFY) || self.rules.iter().any(|(_, action)| *action == super::NOTIFY)
    }
}

/// A test of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    /// Which one, from 0 to 5.
    pub argument: u32,
    /// What is asked of it.
    pub comparison: ArgumentComparison,
    /// What it is compared with.
    pub value: u64,
    /// Whether the contrary is asked.
    pub negated: bool,
}

impl Test {
    fn code(&self) -> u16 {
        match self.comparison {
            ArgumentComparison::Equal | ArgumentComparison::Masked(_) => EQUAL,
            ArgumentComparison::Greater => GREATER,
            ArgumentComparison::GreaterOrEqual => GREATER_OR_EQUAL,
        }
    }

    /// Tells whether it asks for another value of the same thing, of which only the lower half differs.
    fn excludes(&self, other: &Self) -> bool {
        let asked = |test: &Self| (test.argument, test.comparison, halves(test.value).1, test.negated, test.code());
        asked(self) == asked(other) && self.code() == EQUAL && !self.negated
    }
}

/// The tests of a rule that are still to be asked, and what it answers.
type Rest<'a> = (&'a [Test], u32);

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArgumentComparison {
    /// It is the value.
    Equal,
    /// It is greater.
    Greater,
    /// It is the value or greater.
    GreaterOrEqual,
    /// With this mask first.
    Masked(u64),
}

/// `BPF_LD | BPF_W | BPF_ABS`, and so on: `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const GO: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data` (seccomp(2)): the number, the architecture, and six arguments of eight bytes. The
/// lower half of an argument comes first on machines of little byte order, which all that are supported are.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    operand: u32,
}

/// A place in the code: how many instructions follow after it.
type Place = usize;

/// Code under construction, its last instruction first.
#[derive(Debug, Default)]
pub struct FilterProgram {
    reversed: Vec<Instruction>,
    returns: BTreeMap<u32, Place>,
    leaves: BTreeMap<Leaf, Place>,
}

/// The kernel's name for the processor, the bit that marks a second numbering on it, and the calls.
pub type Section = (u32, u32, BTreeMap<u32, Leaf>);

impl FilterProgram {
    /// Writes the whole filter. `stub` is for calls beyond the last one that a section knows, `other` for processors and
    /// numberings that have no section.
    ///
    /// The architecture is asked first: the same number is another call elsewhere (seccomp(2)).
    pub fn compile(sections: &[Section], default: u32, stub: Option<u32>, other: u32) -> Self {
        let mut program = Self::default();
        let unknown = program.give(other);
        let mut next = unknown;
        let mut processors: Vec<u32> = sections.iter().map(|(audit, ..)| *audit).collect();
        processors.dedup();
        for processor in processors.into_iter().rev() {
            let mut other_numbering = None;
            let mut plain = unknown;
            for (_, bit, leaves) in sections.iter().filter(|(audit, ..)| *audit == processor) {
                let start = program.tree(&ranges(leaves, *bit, default, stub));
                if *bit == 0 { plain = start } else { other_numbering = Some(start) }
            }
            // x86-64 and x32 have one AUDIT_ARCH; x32's numbers have bit 30 set (seccomp(2)). A filter that forgot
            // this would let every call through under its other number.
            if processor == super::ARCHITECTURES[0].audit {
                plain = program.branch(GREATER_OR_EQUAL, super::X32_BIT, other_numbering.unwrap_or(unknown), plain);
            }
            let numbers = if plain + 1 == program.reversed.len() {
                program.add(LOAD, 0, 0, NUMBER)
            } else {
                // The load has to stand right before the tree that it serves, which is elsewhere: a jump leads there.
                let far = program.go(plain);
                debug_assert_eq!(far + 1, program.reversed.len());
                program.add(LOAD, 0, 0, NUMBER)
            };
            next = program.branch(EQUAL, processor, numbers, next);
        }
        if next + 1 != program.reversed.len() {
            program.go(next);
        }
        program.add(LOAD, 0, 0, ARCHITECTURE);
        program
    }

    /// Returns the code as the kernel wants it.
    ///
    /// More than 4,096 instructions, `BPF_MAXINSNS`.
    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let count = self.reversed.len();
        ensure!(count <= 4096, "seccomp filter has {count} instructions, the kernel takes 4096");
        let mut bytes = Vec::with_capacity(self.reversed.len() * 8);
        for Instruction { code, yes, no, operand } in self.reversed.iter().rev() {
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[*yes, *no]);
            bytes.extend_from_slice(&operand.to_ne_bytes());
        }
        Ok(bytes)
    }

    fn add(&mut self, code: u16, yes: u8, no: u8, operand: u32) -> Place {
        self.reversed.push(Instruction { code, yes, no, operand });
        self.reversed.len() - 1
    }

    /// How many instructions a jump, written next, skips to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place
    }

    fn go(&mut self, place: Place) -> Place {
        self.add(GO, 0, 0, u32::try_from(self.distance(place)).unwrap_or(u32::MAX))
    }

    /// Writes a conditional jump. It reaches 255 instructions; for farther places it goes by way of another jump.
    fn branch(&mut self, code: u16, operand: u32, mut yes: Place, mut no: Place) -> Place {
        // One more instruction may come between, so the limit is one less.
        if self.distance(no) > 254 {
            no = self.go(no);
        }
        if self.distance(yes) > 255 {
            yes = self.go(yes);
        }
        let near = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        let (yes, no) = (near(self.distance(yes)), near(self.distance(no)));
        self.add(code, yes, no, operand)
    }

    /// Returns a place that gives the answer, near if there is one.
    fn give(&mut self, action: u32) -> Place {
        match self.returns.get(&action) {
            Some(place) if self.distance(*place) < 200 => *place,
            _ => {
                let place = self.add(RETURN, 0, 0, action);
                self.returns.insert(action, place);
                place
            }
        }
    }

    /// Writes the choice between ranges of numbers, each given by its first number.
    fn tree(&mut self, ranges: &[(u32, Leaf)]) -> Place {
        match ranges {
            [] => self.give(super::KILL_THREAD),
            [(_, leaf)] => self.leaf(leaf),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.tree(high);
                let below = self.tree(low);
                self.branch(GREATER_OR_EQUAL, high[0].0, above, below)
            }
        }
    }

    fn leaf(&mut self, leaf: &Leaf) -> Place {
        // Numberings and calls with the same rules share their code.
        if let Some(place) = self.leaves.get(leaf) {
            return *place;
        }
        let default = self.give(leaf.action.unwrap_or(super::KILL_THREAD));
        let rules: Vec<Rest<'_>> = leaf.rules.iter().map(|(tests, action)| (tests.as_slice(), *action)).collect();
        let place = self.chain(&rules, default);
        if !rules.is_empty() {
            self.leaves.insert(leaf.clone(), place);
        }
        place
    }

    /// Writes rules of which the first that holds decides. Those in a row that begin with the same test ask it once, and
    /// those that look for several values of the same argument load it once.
    fn chain(&mut self, mut rules: &[Rest<'_>], mut next: Place) -> Place {
        while let Some((tests, action)) = rules.last() {
            let Some(first) = tests.first() else {
                next = self.give(*action);
                rules = &rules[..rules.len() - 1];
                continue;
            };
            let mut groups: Vec<(Test, &[Rest<'_>])> = Vec::new();
            let mut values = BTreeSet::new();
            while let Some(test) = rules.last().and_then(|(tests, _)| tests.first()) {
                // Values of one argument exclude each other, so their order does not matter; the same value twice
                // would.
                if !groups.is_empty() && !test.excludes(first) || !values.insert(test.value) {
                    break;
                }
                let length = rules.iter().rev().take_while(|(tests, _)| tests.first() == Some(test)).count();
                let (before, group) = rules.split_at(rules.len() - length);
                groups.push((*test, group));
                rules = before;
            }
            next = self.choice(&groups, next);
        }
        next
    }

    /// Writes the choice between groups of rules by their first tests, of which at most one holds; the last group is first.
    fn choice<'a>(&mut self, groups: &[(Test, &[Rest<'a>])], fails: Place) -> Place {
        let rest = |group: &&[Rest<'a>]| group.iter().map(|(tests, action)| (&tests[1..], *action)).collect();
        let rests: Vec<Vec<Rest<'a>>> = groups.iter().map(|(_, group)| rest(group)).collect();
        // What is an answer alone is written near the test.
        let is_answer = |rest: &[(&[Test], u32)]| rest[0].0.is_empty();
        let places: Vec<_> = rests.iter().map(|rest| (!is_answer(rest)).then(|| self.chain(rest, fails))).collect();
        let mut next = fails;
        for (((test, _), rest), place) in groups.iter().zip(&rests).zip(places) {
            let holds = place.unwrap_or_else(|| self.give(rest[0].1));
            let (yes, no) = if test.negated { (next, holds) } else { (holds, next) };
            next = self.branch(test.code(), halves(test.value).0, yes, no);
            if groups.len() == 1 {
                return self.upper_half(test, yes, no);
            }
        }
        self.upper_half(&groups[0].0, fails, fails)
    }

    /// Writes what comes before the test of an argument's lower half: that of the upper one, and loading both.
    fn upper_half(&mut self, test: &Test, yes: Place, no: Place) -> Place {
        let (low_at, high) = (ARGUMENTS + 8 * test.argument, halves(test.value).1);
        let mask = if let ArgumentComparison::Masked(mask) = test.comparison { Some(halves(mask)) } else { None };
        if let Some((mask, _)) = mask {
            self.add(AND, 0, 0, mask);
        }
        let lower = self.add(LOAD, 0, 0, low_at);
        // A mask that leaves nothing of the upper half: that one need not be read.
        if matches!(mask, Some((_, 0))) && high == 0 {
            return lower;
        }
        self.branch(EQUAL, high, lower, no);
        if test.code() != EQUAL {
            let equal = self.reversed.len() - 1;
            self.branch(GREATER, high, yes, equal);
        }
        if let Some((_, mask)) = mask {
            self.add(AND, 0, 0, mask);
        }
        self.add(LOAD, 0, 0, low_at + 4)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the halves of a number are wanted")]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// Turns calls into ranges that cover all numbers of one numbering; neighbours of one fate become one range.
fn ranges(leaves: &BTreeMap<u32, Leaf>, bit: u32, default: u32, stub: Option<u32>) -> Vec<(u32, Leaf)> {
    let plain = |action: u32| Leaf { rules: Vec::new(), action: Some(action) };
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    let mut add = |first: u32, leaf: Leaf| {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((first, leaf));
        }
    };
    let mut next = bit;
    for (number, leaf) in leaves {
        if *number > next {
            add(next, plain(default));
        }
        add(*number, Leaf { action: leaf.action.or(Some(default)), ..leaf.clone() });
        next = number + 1;
    }
    let beyond = stub.filter(|_| !leaves.is_empty()).unwrap_or(default);
    add(next, plain(beyond));
    ranges
}
