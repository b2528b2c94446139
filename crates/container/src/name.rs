//! The names that people give containers, as engines note them: docker a file for each container, podman one for all,
//! nerdctl a file for each name.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Looks names up, and remembers them.
#[derive(Debug)]
pub struct Names {
    /// What stands before the engines' paths; tests have their own.
    root: PathBuf,
    known: HashMap<String, Option<String>>,
    /// What has been read of engines that note all in one place.
    others: Option<HashMap<String, String>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), known: HashMap::new(), others: None }
    }
}

/// Where podman notes its containers: those that stay, and those that end with a boot.
const PODMAN: [&str; 2] = [
    "var/lib/containers/storage/overlay-containers/containers.json",
    "var/lib/containers/storage/overlay-containers/volatile-containers.json",
];

const NERDCTL: &str = "var/lib/nerdctl";

impl Names {
    /// Returns the name of the container with that id.
    pub fn of(&mut self, id: &str) -> Option<String> {
        // An id is a part of a path here.
        if id.contains('/') || id.starts_with('.') {
            return None;
        }
        if let Some(name) = self.known.get(id) {
            return name.clone();
        }
        let name = self.docker(id).or_else(|| self.others().get(id).cloned());
        self.known.insert(id.to_owned(), name.clone());
        name
    }

    /// Returns the id of the container with that name.
    pub fn id(&mut self, name: &str) -> Option<String> {
        let docker = fs::read_dir(self.docker_directory()).into_iter().flatten().flatten();
        let mut ids = docker.filter_map(|entry| entry.file_name().into_string().ok());
        let found = ids.find(|id| self.docker(id).as_deref() == Some(name));
        found.or_else(|| self.others().iter().find(|(_, other)| *other == name).map(|(id, _)| id.clone()))
    }

    fn docker(&self, id: &str) -> Option<String> {
        let config = read(&self.docker_directory().join(id).join("config.v2.json"))?;
        Some(config.get("Name")?.as_str()?.trim_start_matches('/').to_owned())
    }

    fn docker_directory(&self) -> PathBuf {
        let daemon = read(&self.root.join("etc/docker/daemon.json"));
        let root = daemon.as_ref().and_then(|daemon| daemon.get("data-root")?.as_str());
        self.root.join(root.unwrap_or("var/lib/docker").trim_start_matches('/')).join("containers")
    }

    /// Reads the names that are not noted container by container.
    fn others(&mut self) -> &HashMap<String, String> {
        let root = self.root.clone();
        self.others.get_or_insert_with(|| {
            let mut others: HashMap<_, _> = PODMAN.iter().flat_map(|path| podman(&root.join(path))).collect();
            others.extend(nerdctl(&root.join(NERDCTL)));
            others
        })
    }
}

fn podman(path: &Path) -> Vec<(String, String)> {
    let Some(Value::Array(containers)) = read(path) else { return vec![] };
    let named = |container: &Value| {
        let name = container.get("names")?.as_array()?.first()?.as_str()?;
        Some((container.get("id")?.as_str()?.to_owned(), name.to_owned()))
    };
    containers.iter().filter_map(named).collect()
}

/// `<daemon's address, hashed>/names/<namespace>/<name>` holds the id.
fn nerdctl(directory: &Path) -> Vec<(String, String)> {
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = below(directory.to_owned()).flat_map(|daemon| below(daemon.join("names"))).flat_map(below);
    let named = |file: PathBuf| {
        let id = fs::read_to_string(&file).ok()?.trim().to_owned();
        Some((id, file.file_name()?.to_str()?.to_owned()))
    };
    files.filter_map(named).collect()
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engines_names_are_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("var/lib/docker/containers/d1/config.v2.json", r#"{"ID":"d1","Name":"/web"}"#);
        write("var/lib/docker/containers/d2/config.v2.json", "not JSON");
        write(PODMAN[0], r#"[{"id":"p1","names":["db"],"layer":"x"},{"id":"p2","names":[]},7]"#);
        write(PODMAN[1], r#"[{"id":"p3","names":["cache","again"]}]"#);
        write("var/lib/nerdctl/1935db59/names/default/proxy", "n1\n");
        let mut names = Names { root: root.path().to_owned(), ..Names::default() };
        for (id, name) in [("d1", "web"), ("p1", "db"), ("p3", "cache"), ("n1", "proxy")] {
            assert_eq!(names.of(id).as_deref(), Some(name));
            assert_eq!(names.of(id).as_deref(), Some(name), "asked again");
            assert_eq!(names.id(name).as_deref(), Some(id));
        }
        for id in ["d2", "p2", "none", "", "../d1", "."] {
            assert_eq!(names.of(id), None, "{id}");
        }
        assert_eq!(names.id("again"), None);
        write("etc/docker/daemon.json", r#"{"data-root":"/srv/docker"}"#);
        write("srv/docker/containers/d3/config.v2.json", r#"{"Name":"/moved"}"#);
        assert_eq!(names.id("moved").as_deref(), Some("d3"));
    }
}
