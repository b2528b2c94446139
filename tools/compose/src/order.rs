//! Which services take part, and in which order they start.

use anyhow::{Result, bail};

use crate::service::Outline;

/// Returns which services are `wanted` (all if none is named) or needed by those, each after what it needs, by index.
pub(crate) fn order(services: &[Outline], wanted: &[String], profiles: &[&str]) -> Result<Vec<usize>> {
    if let Some(unknown) = wanted.iter().find(|name| services.iter().all(|service| service.name != **name)) {
        return Err(cli::Usage(format!("no service {unknown}")).into());
    }
    let on = |service: &Outline| {
        service.profiles.is_empty()
            || service.profiles.iter().any(|profile| profiles.contains(&profile.as_str()))
            || profiles.contains(&"*")
    };
    let mut walk = Walk { services, ordered: Vec::new(), path: Vec::new() };
    for (index, service) in services.iter().enumerate() {
        // A service that is asked for by name takes part without its profile.
        let starts = if wanted.is_empty() { on(service) } else { wanted.contains(&service.name) };
        if starts {
            walk.visit(index, &|service| on(service) || wanted.contains(&service.name))?;
        }
    }
    Ok(walk.ordered)
}

struct Walk<'a> {
    services: &'a [Outline],
    ordered: Vec<usize>,
    path: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, index: usize, on: &dyn Fn(&Outline) -> bool) -> Result<()> {
        if self.ordered.contains(&index) {
            return Ok(());
        }
        let service = &self.services[index];
        // The path and not what was visited: two services may need the same third.
        if self.path.contains(&index) {
            let names: Vec<&str> = self.path.iter().map(|index| &*self.services[*index].name).collect();
            bail!("services depend on each other in a circle: {} -> {}", names.join(" -> "), service.name);
        }
        self.path.push(index);
        for dependency in &service.dependencies {
            match self.services.iter().position(|other| other.name == dependency.service) {
                // A dependency does not turn a profile on (compose-spec, 15): one that is off is an error, unless it
                // is not required.
                Some(other) if on(&self.services[other]) => self.visit(other, on)?,
                _ if !dependency.required => {}
                Some(_) => bail!("service {} needs {}, whose profile is not enabled", service.name, dependency.service),
                None => bail!("service {} needs {}, which does not exist", service.name, dependency.service),
            }
        }
        self.path.pop();
        self.ordered.push(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Dependency, DependencyCondition};

    /// `name: needs…`, with `?` before what is not required and `@profile` for a profile.
    fn services(text: &str) -> Vec<Outline> {
        text.split("; ")
            .map(|line| {
                let (name, rest) = line.split_once(':').unwrap();
                let words: Vec<&str> = rest.split_whitespace().collect();
                let dependency = |word: &&str| Dependency {
                    service: word.trim_start_matches('?').to_owned(),
                    condition: DependencyCondition::Started,
                    required: !word.starts_with('?'),
                    restart: false,
                };
                Outline {
                    name: name.to_owned(),
                    dependencies: words.iter().filter(|word| !word.starts_with('@')).map(dependency).collect(),
                    profiles: words.iter().filter_map(|word| word.strip_prefix('@')).map(str::to_owned).collect(),
                }
            })
            .collect()
    }

    fn names(text: &str, wanted: &[&str], profiles: &[&str]) -> Result<String, String> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let services = services(text);
        let ordered = order(&services, &wanted, profiles).map_err(|error| error.to_string())?;
        Ok(ordered.into_iter().map(|index| services[index].name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_service_starts_after_what_it_needs() {
        for (text, wanted, profiles, want) in [
            ("a: b; b: c; c:", &[][..], &[][..], Ok("c b a")),
            ("a: b; b: c; c:; d:", &["b"], &[], Ok("c b")),
            ("a: b c; b: c; c:", &[], &[], Ok("c b a")),
            ("a: ?x; b:", &[], &[], Ok("a b")),
            ("a:; b: @dev", &[], &[], Ok("a")),
            ("a:; b: @dev", &[], &["dev"], Ok("a b")),
            ("a:; b: @dev", &["b"], &[], Ok("b")),
            ("a: ?b; b: @dev", &[], &[], Ok("a")),
            ("a: b; b: @dev", &[], &[], Err("service a needs b, whose profile is not enabled")),
            ("a: x", &[], &[], Err("service a needs x, which does not exist")),
            ("a: b; b: a", &[], &[], Err("services depend on each other in a circle: a -> b -> a")),
            ("a:", &["x"], &[], Err("no service x")),
        ] {
            assert_eq!(names(text, wanted, profiles), want.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
