//! `linux.seccomp` of config.json (runtime-spec, config-linux.md, "Seccomp").

use std::path::PathBuf;

use serde::Deserialize;

/// What is allowed, and what becomes of the rest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// What becomes of calls that no rule names: `SCMP_ACT_…`.
    pub default_action: String,
    /// The error number that goes with it.
    pub default_errno_ret: Option<u32>,
    /// Numberings of system calls beside the machine's own: `SCMP_ARCH_…`.
    #[serde(deserialize_with = "or_default")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`. None at all is something else than an empty list.
    pub flags: Option<Vec<String>>,
    /// The socket of whoever decides on calls with `SCMP_ACT_NOTIFY`.
    #[serde(deserialize_with = "or_default")]
    pub listener_path: PathBuf,
    /// What is sent there beside the state.
    #[serde(deserialize_with = "or_default")]
    pub listener_metadata: String,
    /// The rules, of which the first for a call decides.
    #[serde(deserialize_with = "or_default")]
    pub syscalls: Vec<SyscallRule>,
}

/// A rule for some system calls.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// The calls. Names that mean nothing here are passed over.
    #[serde(deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// What becomes of them: `SCMP_ACT_…`.
    pub action: String,
    /// The error number that goes with it.
    pub errno_ret: Option<u32>,
    /// What the arguments must be for the rule to apply.
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<SyscallArgument>,
}

/// A test of one argument.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallArgument {
    /// Which one, from 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask for `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// What is compared with after masking.
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}

/// Reads `null` as the member's absence: Go writes its nil slices so.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
