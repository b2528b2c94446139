//! A seccomp profile from a file: the runtime specification's form as it is, docker's form (`archMap`, rules with
//! `includes` and `excludes`) turned into it.

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::CapabilitySet;
use serde_json::{Map, Value, json};

use super::host_architecture;
use crate::capability;

/// Parses a profile for a container with these capabilities.
pub(crate) fn parse(text: &[u8], capabilities: CapabilitySet) -> Result<Value> {
    let Value::Object(mut profile) = serde_json::from_slice(text)? else { bail!("not a JSON object") };
    ensure!(profile.get("defaultAction").is_some_and(Value::is_string), "no `defaultAction`");
    if let Some(map) = profile.remove("archMap").filter(|map| !map.is_null()) {
        // Docker refuses the two together, as they say the same.
        ensure!(!profile.contains_key("architectures"), "both `architectures` and `archMap`");
        profile.insert("architectures".into(), architectures(&map)?);
    }
    let rules = match profile.remove("syscalls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(rules)) => rules,
        Some(_) => bail!("`syscalls` is not a list"),
    };
    let kernel = kernel_version();
    let mut kept = Vec::new();
    for (number, rule) in rules.into_iter().enumerate() {
        let Value::Object(rule) = rule else { bail!("rule {number} is not an object") };
        if applies(&rule, capabilities, kernel).with_context(|| format!("rule {number}"))? {
            kept.push(plain(rule));
        }
    }
    profile.insert("syscalls".into(), Value::Array(kept));
    Ok(Value::Object(profile))
}

/// Returns the host's architecture with those that run beside it.
fn architectures(map: &Value) -> Result<Value> {
    let names = super::architectures();
    let native = names.with_context(|| format!("no name in seccomp for the architecture {}", host_architecture()))?[0];
    let entries = map.as_array().context("`archMap` is not a list")?;
    let entry = entries.iter().find(|entry| entry["architecture"] == native);
    let mut names = vec![json!(native)];
    names.extend(entry.and_then(|entry| entry["subArchitectures"].as_array()).into_iter().flatten().cloned());
    Ok(Value::Array(names))
}

/// Tells whether docker's conditions of a rule are met: every kind under `includes`, none under `excludes`.
fn applies(rule: &Map<String, Value>, capabilities: CapabilitySet, kernel: (u32, u32)) -> Result<bool> {
    let names = |conditions: &Value, kind: &str| -> Vec<String> {
        let list = conditions[kind].as_array().into_iter().flatten();
        list.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let has = |name: &String| capability::named(name).is_ok_and(|capability| capabilities.contains(capability));
    let minimum = |conditions: &Value| -> Result<Option<bool>> {
        let Some(text) = conditions["minKernel"].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
        let version = parse_version(text).with_context(|| format!("`{text}` is not the version of a kernel"))?;
        Ok(Some(kernel >= version))
    };
    if let Some(includes) = rule.get("includes") {
        let architectures = names(includes, "arches");
        let here = architectures.is_empty() || architectures.contains(&host_architecture());
        if !here || !names(includes, "caps").iter().all(has) || minimum(includes)? == Some(false) {
            return Ok(false);
        }
    }
    if let Some(excludes) = rule.get("excludes") {
        let here = names(excludes, "arches").contains(&host_architecture());
        if here || names(excludes, "caps").iter().any(has) || minimum(excludes)? == Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps of a rule what the runtime specification knows.
fn plain(mut rule: Map<String, Value>) -> Value {
    if let Some(name) = rule.remove("name").filter(Value::is_string) {
        rule.entry("names").or_insert_with(|| json!([name]));
    }
    rule.retain(|key, value| ["names", "action", "errnoRet", "args"].contains(&key.as_str()) && !value.is_null());
    Value::Object(rule)
}

fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    name.release().to_str().ok().and_then(parse_version).unwrap_or_default()
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_the_runtime_specification_stays_as_it_is() {
        let text = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        assert_eq!(parse(text, CapabilitySet::empty()).unwrap().to_string().as_bytes(), text);
    }

    #[test]
    fn dockers_conditions_are_evaluated() {
        let kernel = (6, 1);
        let admin = CapabilitySet::SYS_ADMIN;
        let here = host_architecture();
        for (rule, without, with) in [
            (json!({}), true, true),
            (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), false, true),
            (json!({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}), true, false),
            (json!({"includes": {"arches": ["none"]}}), false, false),
            (json!({"includes": {"arches": ["none", here]}}), true, true),
            (json!({"excludes": {"arches": [here]}}), false, false),
            (json!({"includes": {"minKernel": "4.8"}}), true, true),
            (json!({"includes": {"minKernel": "6.2"}}), false, false),
            (json!({"excludes": {"minKernel": "6.1"}}), false, false),
        ] {
            let object = rule.as_object().unwrap();
            assert_eq!(applies(object, CapabilitySet::empty(), kernel).unwrap(), without, "{rule}");
            assert_eq!(applies(object, admin, kernel).unwrap(), with, "{rule}");
        }
    }

    #[test]
    fn dockers_form_becomes_the_specifications() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO",
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                       {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
            "syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","args":null,"comment":"c","includes":{},"excludes":{}}]}"#;
        let profile = parse(text, CapabilitySet::empty()).unwrap();
        assert_eq!(profile["architectures"].as_array().unwrap().len(), 2);
        assert_eq!(profile["syscalls"], json!([{"action": "SCMP_ACT_ALLOW", "names": ["a"]}]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "[]", "{}", r#"{"defaultAction":"x","syscalls":1}"#, r#"{"defaultAction":"x","syscalls":[1]}"#]
        {
            assert!(parse(text.as_bytes(), CapabilitySet::empty()).is_err(), "{text}");
        }
    }
}
