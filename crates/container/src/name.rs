//! The names that people give containers, as engines note them: docker a file for each container, podman one for all of
//! a user's, nerdctl a file for each name, Kubernetes annotations in the bundles that containerd makes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{RuntimeId, accounts, file};

/// Looks names up, and remembers them.
#[derive(Debug)]
pub struct Names {
    /// What stands before the engines' paths; tests have their own.
    root: PathBuf,
    known: HashMap<(String, Option<u32>), Option<String>>,
    /// What has been read of engines that note all in one place, for each user whose containers they are.
    others: HashMap<Option<u32>, HashMap<String, String>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), known: HashMap::new(), others: HashMap::new() }
    }
}

/// Where podman notes its containers, below its storage: those that stay, and those that end with a boot.
const PODMAN: [&str; 4] = [
    "overlay-containers/containers.json",
    "overlay-containers/volatile-containers.json",
    "vfs-containers/containers.json",
    "vfs-containers/volatile-containers.json",
];

/// podman's storage: root's, and below a home directory that of any other.
const STORAGE: &str = "var/lib/containers/storage";
const OWN_STORAGE: &str = ".local/share/containers/storage";

const NERDCTL: &str = "var/lib/nerdctl";

/// Below it each namespace of containerd's has a directory with its bundles.
const BUNDLES: &str = "run/containerd/io.containerd.runtime.v2.task";

impl Names {
    /// Returns the name of the container with that id, of another `user` or of the system and the caller.
    pub fn of(&mut self, id: &str, user: Option<u32>) -> Option<String> {
        // An id is a part of a path here.
        id.parse::<RuntimeId>().ok()?;
        let key = (id.to_owned(), user);
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let of_system = || self.docker(id).or_else(|| self.pod(id)).filter(|_| user.is_none());
        let name = of_system().or_else(|| self.others(user).get(id).cloned());
        self.known.insert(key, name.clone());
        name
    }

    /// Returns the id of the container with that name, of another `user` or of the system and the caller.
    pub fn id(&mut self, name: &str, user: Option<u32>) -> Option<String> {
        let found = if user.is_none() { self.in_docker(name).or_else(|| self.in_pods(name)) } else { None };
        found.or_else(|| self.others(user).iter().find(|(_, other)| *other == name).map(|(id, _)| id.clone()))
    }

    fn in_docker(&self, name: &str) -> Option<String> {
        let docker = fs::read_dir(self.docker_directory()).into_iter().flatten().flatten();
        let mut ids = docker.filter_map(|entry| entry.file_name().into_string().ok());
        ids.find(|id| self.docker(id).as_deref() == Some(name))
    }

    /// Returns `POD/CONTAINER`, or for the one that holds a pod together the pod's name alone.
    fn pod(&self, id: &str) -> Option<String> {
        below(self.root.join(BUNDLES)).find_map(|space| pod(&space.join(id)))
    }

    /// A pod's name is its namespace's own: where two have it, it says nothing.
    fn in_pods(&self, name: &str) -> Option<String> {
        let bundles = below(self.root.join(BUNDLES)).flat_map(below);
        let mut found = bundles.filter(|bundle| pod(bundle).as_deref() == Some(name));
        let only = found.next().filter(|_| found.next().is_none())?;
        Some(only.file_name()?.to_str()?.to_owned())
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
    fn others(&mut self, user: Option<u32>) -> &HashMap<String, String> {
        let root = self.root.clone();
        self.others.entry(user).or_insert_with(|| {
            let storages = homes(&root, user).map(|home| home.join(OWN_STORAGE));
            let mut others: HashMap<_, _> = storages.flat_map(|storage| podman(&storage, user)).collect();
            // The later one wins: what root's engines note is not for others to call by another name.
            if user.is_none() {
                others.extend(podman(&root.join(STORAGE), None));
                others.extend(nerdctl(&root.join(NERDCTL)));
            }
            others
        })
    }
}

/// Returns the number of a user who is called so, or has that number.
pub(crate) fn user(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| users(Path::new("/")).find(|(name, ..)| name == text).map(|(_, uid, _)| uid))
}

/// Returns the home directories of a user, or the caller's own.
fn homes(root: &Path, user: Option<u32>) -> impl Iterator<Item = PathBuf> {
    let wanted = user.unwrap_or_else(file::caller);
    let own = std::env::var_os("HOME").map(PathBuf::from).filter(|_| user.is_none());
    let homes = users(root).filter(move |(_, uid, _)| *uid == wanted).map(|(.., home)| home).chain(own);
    let root = root.to_owned();
    homes.filter_map(move |home| Some(root.join(home.strip_prefix("/").ok()?)))
}

/// Returns who has an account: name, number and home directory.
fn users(root: &Path) -> impl Iterator<Item = (String, u32, PathBuf)> {
    accounts::users(root).filter_map(|fields| {
        Some((fields.first()?.clone(), fields.get(accounts::UID)?.parse().ok()?, fields.get(accounts::HOME)?.into()))
    })
}

fn podman(storage: &Path, user: Option<u32>) -> Vec<(String, String)> {
    PODMAN.iter().flat_map(|file| podman_list(&storage.join(file), user)).collect()
}

fn podman_list(path: &Path, user: Option<u32>) -> Vec<(String, String)> {
    let text = file::read(path, user).ok().flatten();
    let list = text.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(Value::Array(containers)) = list else { return vec![] };
    let named = |container: &Value| {
        let name = container.get("names")?.as_array()?.first()?.as_str()?;
        Some((container.get("id")?.as_str()?.to_owned(), name.to_owned()))
    };
    containers.iter().filter_map(named).collect()
}

/// `<daemon's address, hashed>/names/<namespace>/<name>` holds the id.
fn nerdctl(directory: &Path) -> Vec<(String, String)> {
    let files = below(directory.to_owned()).flat_map(|daemon| below(daemon.join("names"))).flat_map(below);
    let named = |file: PathBuf| {
        let id = String::from_utf8(file::read(&file, None).ok()??).ok()?.trim().to_owned();
        Some((id, file.file_name()?.to_str()?.to_owned()))
    };
    files.filter_map(named).collect()
}

/// Reads what the kubelet has containerd note (`io.kubernetes.cri`).
fn pod(bundle: &Path) -> Option<String> {
    let config = read(&bundle.join("config.json"))?;
    let annotation = |name: &str| config.get("annotations")?.get(format!("io.kubernetes.cri.{name}"))?.as_str();
    let pod = annotation("sandbox-name")?;
    let name = annotation("container-name").filter(|_| annotation("container-type") != Some("sandbox"));
    Some(name.map_or_else(|| pod.to_owned(), |name| format!("{pod}/{name}")))
}

fn below(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&file::read(path, None).ok()??).ok()
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
        let podman = |file: &str| format!("{STORAGE}/{file}");
        write(&podman(PODMAN[0]), r#"[{"id":"p1","names":["db"],"layer":"x"},{"id":"p2","names":[]},7]"#);
        write(&podman(PODMAN[1]), r#"[{"id":"p3","names":["cache","again"]}]"#);
        let me = file::caller();
        write("etc/passwd", &format!("me:x:{me}:1000::/home/me:/bin/sh\nalice:x:{}:7::/home/alice:\nbroken\n", me + 1));
        let own = r#"[{"id":"r1","names":["mine"]},{"id":"p1","names":["not-mine"]}]"#;
        write(&format!("home/me/{OWN_STORAGE}/{}", PODMAN[2]), own);
        write(&format!("home/alice/{OWN_STORAGE}/{}", PODMAN[2]), r#"[{"id":"a1","names":["hers"]}]"#);
        let cri = |id: &str, annotations: &str| {
            write(&format!("{BUNDLES}/k8s.io/{id}/config.json"), &format!(r#"{{"annotations":{{{annotations}}}}}"#));
        };
        let kind = |kind: &str, pod: &str| {
            format!(r#""io.kubernetes.cri.container-type":"{kind}","io.kubernetes.cri.sandbox-name":"{pod}""#)
        };
        cri("k1", &kind("sandbox", "pod-0"));
        for (id, pod) in [("k2", "pod-0"), ("k3", "twice"), ("k4", "twice")] {
            cri(id, &(kind("container", pod) + r#","io.kubernetes.cri.container-name":"web""#));
        }
        cri("k5", r#""other":"x""#);
        write("var/lib/nerdctl/1935db59/names/default/proxy", "n1\n");
        let mut names = Names { root: root.path().to_owned(), ..Names::default() };
        for (id, name) in [
            ("d1", "web"),
            ("p1", "db"),
            ("p3", "cache"),
            ("n1", "proxy"),
            ("r1", "mine"),
            ("k1", "pod-0"),
            ("k2", "pod-0/web"),
        ] {
            assert_eq!(names.of(id, None).as_deref(), Some(name));
            assert_eq!(names.of(id, None).as_deref(), Some(name), "asked again");
            assert_eq!(names.id(name, None).as_deref(), Some(id));
        }
        assert_eq!((names.of("k3", None).as_deref(), names.id("twice/web", None)), (Some("twice/web"), None));
        for id in ["a1", "d2", "p2", "k5", "none", "", "../d1", "."] {
            assert_eq!(names.of(id, None), None, "{id}");
        }
        assert_eq!(names.id("again", None), None);
        // Her file is not hers here, and so not believed.
        assert_eq!(
            (names.id("hers", None), names.id("hers", Some(me + 1)), names.id("web", Some(me + 1))),
            (None, None, None)
        );
        write("etc/docker/daemon.json", r#"{"data-root":"/srv/docker"}"#);
        write("srv/docker/containers/d3/config.v2.json", r#"{"Name":"/moved"}"#);
        assert_eq!(names.id("moved", None).as_deref(), Some("d3"));
    }
}
