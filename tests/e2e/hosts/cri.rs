//! Kubernetes' side of containerd: pods by the CRI, with spawn behind the `RuntimeClass` of docs/deploy.md and portmap in
//! its chain of CNI plugins.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{Host, containerd};
use crate::support::{Need, Running, Sandbox, Test, test, wait_for};

const NEEDS: &[Need] = &[
    Need::NetNs,
    Need::Overlay,
    Need::Nft,
    Need::Program("busybox"),
    Need::Program("containerd"),
    Need::Program("ctr"),
    Need::Program("curl"),
    Need::File("/usr/lib/cni/bridge"),
    Need::File("/usr/lib/python3/dist-packages/grpc/__init__.py"),
];

const IMAGE: &str = "localhost/busybox:1";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("a_pod_of_the_runtime_class_lives_and_ends", NEEDS, pod_lives),
        test("a_pod_s_containers_are_confined_and_limited", NEEDS, confined),
        test("containerd_finds_its_pods_again_after_a_restart", NEEDS, restart),
        test("a_pod_s_mounts_reach_the_host_and_other_pods", NEEDS, bidirectional),
    ]
}

/// The image is its own sandbox's; containerd may not raise limits everywhere.
const MORE: &str = r#"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/busybox:1"
restrict_oom_score_adj = true
"#;

/// A daemon with the CNI plugins of the document, and a client.
struct Node<'a> {
    host: Host<'a>,
    daemon: RefCell<Option<Running>>,
    client: RefCell<Option<(Running, usize)>>,
}

impl<'a> Node<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let host = Host::new(sandbox);
        host.ok(&super::block("## CNI"));
        host.install("/etc/cni/net.d/10-pods.conflist", "");
        sandbox.write("cri.py", include_str!("cri.py"));
        let node = Self { host, daemon: RefCell::new(None), client: RefCell::new(None) };
        node.start();
        node
    }

    fn start(&self) {
        let daemon = containerd::start(&self.host, "k8s.io", MORE);
        let client = self.host.sandbox.cmd(&["/usr/bin/python3", "cri.py", "/run/containerd/containerd.sock"]);
        *self.client.borrow_mut() = Some((client.open_stdin().start(), 0));
        wait_for("the network of the node", || {
            let status = self.call("Status", &json!({}));
            let conditions = status["status"]["conditions"].as_array().cloned().unwrap_or_default();
            (conditions.len() > 1 && conditions.iter().all(|each| each["status"] == 1)).then_some(())
        });
        wait_for("the image", || {
            self.host.sandbox.run(&["ctr", "-n", "k8s.io", "image", "ls", "-q"]).stdout.contains(IMAGE).then_some(())
        });
        *self.daemon.borrow_mut() = Some(daemon);
    }

    /// Returns the daemon's answer, whatever it is.
    fn answer(&self, method: &str, request: &Value) -> Value {
        let mut client = self.client.borrow_mut();
        let (client, count) = client.as_mut().expect("start() was called");
        client.write_stdin(&format!("{}\n", json!([method, request])));
        *count += 1;
        let line = wait_for(&format!("an answer to {method}"), || {
            client.stdout().split_inclusive('\n').nth(*count - 1).filter(|line| line.ends_with('\n')).map(str::to_owned)
        });
        serde_json::from_str(&line).unwrap()
    }

    /// Returns the daemon's answer, which is no error.
    #[track_caller]
    fn call(&self, method: &str, request: &Value) -> Value {
        let answer = self.answer(method, request);
        assert!(answer.get("error").is_none(), "{method} {request}: {answer}");
        answer
    }

    /// Runs a pod of the document's `RuntimeClass`.
    #[track_caller]
    fn pod(&self, config: &Value) -> Value {
        let class = super::block("`runtimeClassName: spawn`");
        let handler = class.lines().find_map(|line| line.strip_prefix("handler: ")).expect("a handler");
        let answer = self.call("RunPodSandbox", &json!({"config": config, "runtime_handler": handler}));
        answer["pod_sandbox_id"].clone()
    }

    /// Starts a container in a pod.
    #[track_caller]
    fn container(&self, pod: &Value, pod_config: &Value, config: &Value) -> Value {
        let request = json!({"pod_sandbox_id": pod, "config": config, "sandbox_config": pod_config});
        let id = self.call("CreateContainer", &request)["container_id"].clone();
        self.call("StartContainer", &json!({"container_id": id}));
        id
    }

    /// Runs a command in a container and returns its exit code and stdout.
    #[track_caller]
    fn exec(&self, container: &Value, script: &str) -> (i64, String) {
        let request = json!({"container_id": container, "cmd": ["sh", "-c", script], "timeout": 20});
        let answer = self.call("ExecSync", &request);
        (answer["exit_code"].as_i64().unwrap_or(-1), answer["stdout"].as_str().unwrap_or_default().to_owned())
    }

    fn status(&self, container: &Value) -> Value {
        self.call("ContainerStatus", &json!({"container_id": container}))["status"].clone()
    }

    /// Ends a pod, and looks that nothing of it is listed.
    fn remove(&self, pod: &Value) {
        self.call("StopPodSandbox", &json!({"pod_sandbox_id": pod}));
        self.call("RemovePodSandbox", &json!({"pod_sandbox_id": pod}));
        assert_eq!(self.call("ListPodSandbox", &json!({}))["items"], json!([]));
        assert_eq!(self.call("ListContainers", &json!({}))["containers"], json!([]));
    }

    fn stop(&self) {
        drop(self.client.borrow_mut().take());
        if let Some(daemon) = self.daemon.borrow_mut().take() {
            containerd::stop(daemon);
        }
    }

    fn down(self) {
        self.stop();
        self.host.down();
    }
}

fn pod_config(sandbox: &Sandbox) -> Value {
    json!({
        "metadata": {"name": "web", "uid": "u1", "namespace": "default", "attempt": 0},
        "hostname": "web-0", "log_directory": sandbox.at("logs"), "labels": {"app": "web"},
        "port_mappings": [{"protocol": 0, "container_port": 80, "host_port": 8080}],
        "linux": {"cgroup_parent": "/pods/web"}
    })
}

fn container_config(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "attempt": 0}, "image": {"image": IMAGE}, "command": ["sh", "-c", script],
        "log_path": format!("{name}.log"), "linux": {}
    })
}

fn pod_lives(sandbox: &Sandbox) {
    let node = Node::new(sandbox);
    let pod_config = pod_config(sandbox);
    let pod = node.pod(&pod_config);
    let status = node.call("PodSandboxStatus", &json!({"pod_sandbox_id": pod}))["status"].clone();
    assert_eq!((&status["state"], &status["runtime_handler"]), (&json!(0), &json!("spawn")));
    let address = status["network"]["ip"].as_str().unwrap();

    let web = node.container(&pod, &pod_config, &container_config("web", "echo serving; exec httpd -f -p 80 -h /etc"));
    assert!(sandbox.wait_http("127.0.0.1:8080/passwd").contains("root:x:0"), "the host's port");
    assert!(sandbox.wait_http(&format!("{address}:80/passwd")).contains("root:x:0"), "the pod's address");
    assert_eq!(node.exec(&web, "hostname; exit 3"), (3, "web-0\n".to_owned()));
    let absent = node.answer("ExecSync", &json!({"container_id": web, "cmd": ["no-such-program"]}));
    let text = absent["error"].as_str().unwrap_or_default();
    assert!(text.contains("exec: \"no-such-program\": executable file not found in $PATH"), "{absent}");

    let known = sandbox.run(&["spawn", "--root", "/run/containerd/runc/k8s.io", "list", "-q"]).ok().stdout;
    assert!([&pod, &web].iter().all(|id| known.contains(id.as_str().unwrap())), "not spawn's: {known}");

    // A pod's containers share its network, its hostname and here its processes; each has mounts of its own.
    let names = "for kind in mnt pid uts; do echo $kind $(ns list -r -n -t $kind -o CONTAINER | grep web | sort); done";
    sandbox.sh(names).run().ok().stdout_is("mnt web web/web\npid web\nuts web\n");
    sandbox.run(&["ns", "enter", "-t", "web/web", "-m", "/bin/cat", "/etc/hostname"]).ok().stdout_is("web-0\n");

    let once = node.container(
        &pod,
        &pod_config,
        &container_config("once", "wget -qO- http://127.0.0.1/passwd >/dev/null; exit 5"),
    );
    let ended = wait_for("the end of a container", || Some(node.status(&once)).filter(|status| status["state"] == 2));
    assert_eq!(ended["exit_code"], 5, "a pod's containers share its network: {ended}");
    let usage = node.call("ContainerStats", &json!({"container_id": web}));
    let memory = &usage["stats"]["memory"]["working_set_bytes"]["value"];
    assert!(memory.as_u64().is_some_and(|bytes| bytes > 0), "{usage}");
    assert!(sandbox.read("logs/web.log").ends_with("stdout F serving\n"));

    node.call("StopContainer", &json!({"container_id": web, "timeout": 0}));
    assert_eq!(node.status(&web)["exit_code"], 137);
    node.call("RemoveContainer", &json!({"container_id": once}));
    node.remove(&pod);
    sandbox.wait_gone("127.0.0.1:8080/passwd");
    sandbox.run(&["spawn", "--root", "/run/containerd/runc/k8s.io", "list", "-q"]).ok().stdout_is("");
    node.down();
}

fn confined(sandbox: &Sandbox) {
    let node = Node::new(sandbox);
    let mut pod_config = pod_config(sandbox);
    pod_config["linux"]["sysctls"] = json!({"net.ipv4.ip_unprivileged_port_start": "7"});
    let pod = node.pod(&pod_config);
    sandbox.write("volume/file", "shared\n");
    let mut config = container_config("web", "exec sleep 1000");
    config["mounts"] = json!([{"container_path": "/volume", "host_path": sandbox.at("volume"), "readonly": 1}]);
    config["envs"] = json!([{"key": "A", "value": "b"}]);
    config["working_dir"] = json!("/tmp");
    config["linux"] = json!({
        "resources": {"cpu_period": 100_000, "cpu_quota": 50_000, "memory_limit_in_bytes": 67_108_864},
        "security_context": {
            "run_as_user": {"value": 65534}, "run_as_group": {"value": 65534}, "supplemental_groups": [7], "no_new_privs": 1,
            "readonly_rootfs": 1, "capabilities": {"drop_capabilities": ["ALL"]}, "seccomp": {"profile_type": 0},
            "masked_paths": ["/proc/keys"], "readonly_paths": ["/proc/sys"]
        }
    });
    let web = node.container(&pod, &pod_config, &config);
    let script = "id -u; id -g; id -G; pwd; echo $A; cat /volume/file; touch /volume/x /x; wc -c </proc/keys; \
                  grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (_, seen) = node.exec(&web, script);
    let want = "65534\n65534\n65534 7\n/tmp\nb\nshared\n0\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n7\n";
    assert_eq!(seen, want);
    let limits = |node: &Node<'_>| {
        let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max; cat cpu/cpu.cfs_quota_us || cut -d' ' -f1 cpu.max";
        node.exec(&web, script).1
    };
    assert_eq!(limits(&node), "67108864\n50000\n");
    let update = json!({"cpu_period": 100_000, "cpu_quota": 25_000, "memory_limit_in_bytes": 100_663_296});
    node.call("UpdateContainerResources", &json!({"container_id": web, "linux": update}));
    assert_eq!(limits(&node), "100663296\n25000\n");
    node.remove(&pod);
    node.down();
}

fn restart(sandbox: &Sandbox) {
    let node = Node::new(sandbox);
    let pod_config = pod_config(sandbox);
    let pod = node.pod(&pod_config);
    let web = node.container(&pod, &pod_config, &container_config("web", "exec httpd -f -p 80 -h /etc"));
    node.stop();
    assert!(sandbox.wait_http("127.0.0.1:8080/passwd").contains("root:x:0"), "a pod needs no containerd to go on");
    node.start();
    assert_eq!(node.status(&web)["state"], 1);
    assert_eq!(node.exec(&web, "echo still here"), (0, "still here\n".to_owned()));
    node.remove(&pod);
    node.down();
}

/// What a storage plugin mounts is for the kubelet and for other containers: `mountPropagation: Bidirectional`.
fn bidirectional(sandbox: &Sandbox) {
    let node = Node::new(sandbox);
    let pod_config = pod_config(sandbox);
    let pod = node.pod(&pod_config);
    sandbox.sh("mkdir plugins && mount -t tmpfs v plugins && mount --make-rshared plugins").run().ok();
    let container = |name: &str, propagation: u32| {
        let mut config = container_config(name, "exec sleep 1000");
        config["mounts"] =
            json!([{"container_path": "/plugins", "host_path": sandbox.at("plugins"), "propagation": propagation}]);
        config["linux"]["security_context"] =
            json!({"capabilities": {"add_capabilities": ["SYS_ADMIN"]}, "seccomp": {"profile_type": 1}});
        node.container(&pod, &pod_config, &config)
    };
    let (plugin, user, other) = (container("plugin", 2), container("user", 1), container("other", 0));
    let publish = "mkdir /plugins/disk && mount -t tmpfs disk /plugins/disk && echo content >/plugins/disk/file";
    assert_eq!(node.exec(&plugin, publish).0, 0);
    assert_eq!(sandbox.sh("cat plugins/disk/file").run().ok().stdout, "content\n");
    assert_eq!(node.exec(&user, "cat /plugins/disk/file"), (0, "content\n".to_owned()));
    assert_eq!(node.exec(&other, "ls /plugins/disk"), (0, String::new()));
    // A mount of a container that was to hear only stays its own.
    assert_eq!(node.exec(&user, "mkdir /plugins/own && mount -t tmpfs own /plugins/own").0, 0);
    sandbox.sh("! mountpoint -q plugins/own").run().ok();
    // The end of the plugin takes nothing away; it unpublishes after its next start.
    node.call("StopContainer", &json!({"container_id": plugin, "timeout": 0}));
    assert_eq!(sandbox.sh("cat plugins/disk/file").run().ok().stdout, "content\n");
    let plugin = container("plugin2", 2);
    assert_eq!(node.exec(&plugin, "umount /plugins/disk").0, 0);
    sandbox.sh("! mountpoint -q plugins/disk").run().ok();
    node.remove(&pod);
    sandbox.sh("umount plugins").run().ok();
    node.down();
}
