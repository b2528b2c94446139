//! What is asked of `compose`, whatever the words for it are. The options' help describes the members.

/// What a script is to do, and with which services.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker compose up")]
pub(crate) struct ScriptRequest {
    pub(crate) build: bool,
    pub(crate) no_build: bool,
    pub(crate) force_recreate: bool,
    pub(crate) no_deps: bool,
    pub(crate) pull: Option<String>,
    pub(crate) services: Vec<String>,
}
