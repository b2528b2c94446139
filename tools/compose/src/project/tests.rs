use super::*;

fn read_text(text: &str) -> Result<Project> {
    let variables = Variables::from([("TAG".to_owned(), "1.27".to_owned())]);
    read_with(text, &variables, &ProjectRequest::default())
}

fn read_with(text: &str, variables: &Variables, request: &ProjectRequest<'_>) -> Result<Project> {
    let directory = Path::new("/src/shop");
    let value = Source { directory, variables, depth: 0 }.document(text)?.0;
    project(request, &value, directory, variables)
}

fn command_lines(text: &str) -> Vec<String> {
    let project = read_text(text).unwrap();
    project.services.iter().map(without_hash).collect()
}

/// The command line, without the label that all of it decides.
fn without_hash(service: &Service) -> String {
    let mut words = [&service.options[..], &service.operands].concat();
    let hash = words.iter().position(|word| word.starts_with(service::CONFIG_HASH)).unwrap();
    words.drain(hash - 1..=hash);
    words.join(" ")
}

#[test]
fn what_the_file_says_decides_the_hash() {
    let hash = |text: &str| {
        let project = read_text(text).unwrap();
        project.services[0].options.iter().find(|word| word.starts_with(service::CONFIG_HASH)).unwrap().clone()
    };
    let one = hash("services: {a: {image: x, environment: {A: b}}}");
    assert_eq!(hash("services: {a: {environment: [A=b], image: x}}"), one);
    assert_ne!(hash("services: {a: {image: x, environment: {A: c}}}"), one);
}

/// The options that every service has.
fn named(service: &str) -> String {
    format!(
        "--name shop-{service}-1 --label com.docker.compose.project=shop --label com.docker.compose.service={service}"
    )
}

#[test]
fn a_usual_file_becomes_runs_in_order() {
    let text = r#"
services:
  web:
    image: nginx:${TAG:-latest}
    ports: ["8080:80", {target: 443, published: 8443, host_ip: 127.0.0.1}]
    depends_on: {db: {condition: service_healthy}}
    environment: {A: 1, B: "x y", C: }
    volumes: [./site:/usr/share/nginx/html:ro, cache:/var/cache, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    command: nginx -g 'daemon off;'
  db:
    image: postgres
    entrypoint: [docker-entrypoint.sh, -x]
    command: [postgres]
    user: 999:999
    read_only: true
    cap_drop: ALL
    stop_grace_period: 1m30s
    deploy: {resources: {limits: {memory: 64m, cpus: "0.5"}}}
    healthcheck: {test: [CMD, pg_isready, -U, "my db"], interval: 5s, retries: 3}
volumes:
  cache:
"#;
    assert_eq!(
        command_lines(text),
        [
            named("db")
                + " --cap-drop ALL --read-only --stop-timeout 90 --user 999:999 --cpus 0.5 --memory 64m"
                + r#" --network=shop_default:alias=db --health-cmd ["CMD","pg_isready","-U","my db"]"#
                + r#" --health-interval 5s --health-retries 3 --entrypoint ["docker-entrypoint.sh","-x"] -- postgres postgres"#,
            named("web")
                + " --env A=1 --env B=x y --network=shop_default:alias=web --publish 8080:80 \
                   --publish 127.0.0.1:8443:443 --volume /src/shop/site:/usr/share/nginx/html:ro \
                   --volume shop_cache:/var/cache --mount type=tmpfs,target=/t,tmpfs-size=1m \
                   -- nginx:1.27 nginx -g daemon off;",
        ]
    );
}

#[test]
fn each_network_is_a_bridge_of_the_project_s() {
    let options = |networks: &str, of: &str| {
        let lines = command_lines(&format!("networks: {networks}\nservices: {{a: {{image: x{of}}}}}"));
        lines[0].strip_prefix(&named("a")).unwrap().trim().to_owned()
    };
    for (networks, of, want) in [
        ("", "", "shop_default"),
        ("{front: }", ", networks: [front]", "shop_front"),
        ("{front: , back: }", ", networks: [default]", "shop_default"),
        ("{front: , back: }", ", networks: {back: {aliases: [b]}}", "shop_back"),
        ("{front: , back: {name: lab, driver: bridge}}", ", networks: [back]", "lab"),
        ("{front: , back: {external: true}}", ", networks: [back]", "back"),
        ("{default: {external: true, name: proxy}}", "", "proxy"),
        ("{front: , back-of-the-house: }", ", networks: [back-of-the-house]", "shop_back-of-the-house"),
        ("{default: {driver_opts: {com.docker.network.bridge.name: br-mail}}}", "", "br-mail"),
        ("{front: , back: }", ", networks: [front, back]", "shop_back:alias=a --network=shop_front"),
        (
            "{f: , b: }",
            ", networks: {b: , f: {priority: 9, ipv4_address: 10.9.0.7}}",
            "shop_f:alias=a,ip=10.9.0.7 --network=shop_b",
        ),
        (
            "{f: }",
            ", networks: {f: {gw_priority: 1, mac_address: '2:0', ipv6_address: 'fd::7'}}",
            "shop_f:alias=a,ip6=fd::7,mac=2:0,gw-priority=1",
        ),
    ] {
        let alias = if of.contains("aliases") { ",alias=b" } else { "" };
        let want = if want.ends_with("=1") { want.to_owned() } else { format!("{want}:alias=a{alias}") };
        assert_eq!(options(networks, of), format!("--network={want} -- x"), "{networks} {of}");
    }
    for (network, want) in [
        ("", ""),
        ("external: true", ""),
        ("internal: true, enable_ipv6: true", "--internal --ipv6"),
        (
            "ipam: {config: [{subnet: 172.22.1.0/24, gateway: 172.22.1.9, ip_range: 172.22.1.128/25}, {subnet: 'fd00::/64'}]}",
            "--subnet=172.22.1.0/24 --gateway=172.22.1.9 --ip-range=172.22.1.128/25 --subnet=fd00::/64",
        ),
        ("driver: macvlan, driver_opts: {parent: eth0}", "--driver=macvlan --opt=parent=eth0"),
        (
            "driver: bridge, driver_opts: {com.docker.network.bridge.name: br0, com.docker.network.driver.mtu: 1400}",
            "--opt=com.docker.network.driver.mtu=1400",
        ),
    ] {
        let project =
            read_text(&format!("networks: {{default: {{{network}}}}}\nservices: {{a: {{image: x}}}}")).unwrap();
        assert_eq!(project.services[0].networks[0].settings.join(" "), want, "{network}");
    }
    // An ordinary user has no bridges.
    let inner = "networks: {default: {internal: true}}\nservices: {a: {image: x}}";
    let refused = read_with(inner, &Variables::new(), &ProjectRequest { rootless: true, ..ProjectRequest::default() })
        .unwrap_err();
    assert!(format!("{refused:#}").contains("network default is internal"), "{refused:#}");
    let request = ProjectRequest { rootless: true, ..ProjectRequest::default() };
    let project = read_with("services: {a: {image: x}}", &Variables::new(), &request).unwrap();
    let options = &project.services[0].options;
    assert!(!options.iter().any(|option| option.starts_with("--network")), "{options:?}");
}

#[test]
fn one_key_becomes_its_option() {
    for (key, want) in [
        (
            "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}",
            "--gpus 2",
        ),
        ("gpus: all", "--gpus all"),
        ("gpus: [{device_ids: ['0', '3'], capabilities: [gpu]}]", "--gpus device=0,3"),
        ("gpus: [{driver: cdi, device_ids: ['v.com/gpu=0']}]", "--device v.com/gpu=0"),
        ("deploy: {resources: {reservations: {cpus: '0.1', memory: 1m}}}", "--memory-reservation 1m"),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}", "--restart on-failure:3"),
        ("restart: always, deploy: {restart_policy: {condition: none}}", "--restart always"),
        ("pull_policy: if_not_present", "--pull missing"),
        ("entrypoint: []", "--entrypoint []"),
        ("environment: [TAG, NONE, A=b]", "--env TAG=1.27 --env A=b"),
        ("command: \"sh -c 'echo $(date)'\"", ""),
        (
            "volumes: [{type: bind, source: a, target: /b, bind: {create_host_path: true}}]",
            "--mount type=bind,source=/src/shop/a,target=/b,bind-create-src=true",
        ),
        ("volumes: [{type: tmpfs, target: /t, tmpfs: {mode: 01777}}]", "--mount type=tmpfs,target=/t,tmpfs-mode=1777"),
        ("healthcheck: {test: [CMD, /bin/true]}", r#"--health-cmd ["CMD","/bin/true"]"#),
        ("healthcheck: {test: [NONE]}", "--no-healthcheck"),
        ("expose: [99, 7-9/udp]", "--expose 99 --expose 7-9/udp"),
    ] {
        let lines = command_lines(&format!("services: {{a: {{image: x, {key}}}}}"));
        assert!(lines[0].contains(want), "{key}: {}", lines[0]);
        assert!(!lines[0].contains("NONE"), "{key}: {}", lines[0]);
    }
}

#[test]
fn a_link_is_a_name_of_the_other_service() {
    let lines = command_lines("services: {web: {image: x, links: [db, 'db:mysql']}, db: {image: y}}");
    assert!(lines[0].contains("--network=shop_default:alias=db,alias=mysql "), "{lines:?}");
    assert!(lines[1].contains("--network=shop_default:alias=web "), "{lines:?}");
}

#[test]
fn a_service_that_takes_no_part_may_have_anything() {
    let text = "services: {a: {image: x}, b: {build: ., lnk: y, profiles: [dev]}}";
    assert_eq!(read_text(text).unwrap().services.len(), 1);
}

#[test]
fn files_include_and_extend_others() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("sub/more.yaml", "name: other\nservices: {db: {image: \"${DB}\", volumes: ['./d:/d']}}\nvolumes: {v: }");
    write("sub/.env", "DB=pg\n");
    write("sub/base.yaml", "services: {base: {extends: deep, env_file: e}, deep: {image: y, user: root}}");
    write("sub/e", "E=1\n");
    let text =
        "include: [sub/more.yaml]\nservices: {a: {extends: {file: sub/base.yaml, service: base}, depends_on: [db]}}";
    let variables = Variables::new();
    let read = |text: &str| {
        let value = Source { directory: directory.path(), variables: &variables, depth: 0 }.document(text)?.0;
        project(&ProjectRequest::default(), &value, Path::new("/src/shop"), &variables)
    };
    let lines: Vec<String> = read(text).unwrap().services.iter().map(without_hash).collect();
    let volume = format!("--volume {}/sub/d:/d -- pg", directory.path().display());
    assert!(lines[0].starts_with(&named("db")) && lines[0].ends_with(&volume), "{lines:?}");
    assert!(lines[1].contains("--user root --env E=1") && lines[1].ends_with("-- y"), "{lines:?}");
    write("sub/more.yaml", "include: [more.yaml]");
    for (text, want) in [
        ("include: [sub/more.yaml]", "more than 32 files lead here"),
        ("include: [none.yaml]", "none.yaml: read"),
        ("services: {a: {extends: {file: sub/base.yaml, service: nobody}}}", "no service nobody"),
    ] {
        let error = format!("{:#}", read(text).unwrap_err());
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn what_is_wrong_is_told_by_its_place() {
    for (text, want) in [
        ("services: {a: {}}", "services.a: no image"),
        ("services: {a: {build: {context: ., ssh: [x]}}}", "services.a.build.ssh: not supported"),
        ("services: {a: {image: x, lnk: y}}", "services.a.lnk: not supported"),
        ("services: {a: {image: x, ports: [{published: 1}]}}", "services.a.ports[0]: no target"),
        ("services: {a: {image: x, volumes: ['v:/v']}}", "services.a.volumes[0]: no volume v under volumes"),
        ("services: {a: {image: x, tty: 2}}", "services.a.tty: true or false is expected"),
        ("services: {a: {image: x, command: 'it''s'}}", "services.a.command: a quotation mark is not closed"),
        ("services: {a: {image: '${NONE:?}'}}", "services.a.image: NONE: not set"),
        (
            "services: {a: {image: x, healthcheck: {test: [x]}}}",
            "services.a.healthcheck.test: begins with CMD, CMD-SHELL or NONE",
        ),
        ("services: {a: {image: x, networks: [b]}}", "services.a.networks[0]: no network b under networks"),
        (
            "networks: {b: {internal: true, external: true}}\nservices: {a: {image: x, networks: [b]}}",
            "services.a.networks[0]: networks.b: it is external, so its settings are not ours",
        ),
        (
            "networks: {default: {ipam: {config: [{subnet: 10.0.0.0/8, aux_addresses: {}}]}}}\nservices: {a: {image: x}}",
            "services.a: networks.default.ipam.config[0].aux_addresses: not supported",
        ),
        ("services: {a: {image: x, pull_policy: daily}}", "services.a.pull_policy: daily is not supported"),
        ("services: {a: {image: x, logging: {driver: syslog}}}", "services.a.logging.driver: not one of file, local"),
        ("services: {a: {image: x, deploy: {mode: job}}}", "services.a.deploy.mode: neither replicated nor global"),
        ("services: {a: {image: x, gpus: [{driver: x}]}}", "services.a.gpus[0]: neither a GPU nor a device of CDI"),
        ("services: {a: {image: x, scale: 2}}", "services.a.scale: a service has one container here"),
        ("services: {a: {image: x, secrets: [s]}}", "services.a.secrets[0]: no s under secrets"),
        ("services: {a: {image: x, runtime: kata}}", "services.a.runtime: not supported"),
        (
            "services: {a: {image: x, configs: [c]}}\nconfigs: {c: {file: ./x, content: y}}",
            "services.a.configs[0]: configs.c: one of file environment content is expected",
        ),
        (
            "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {content: y}}",
            "services.a.secrets[0]: secrets.s.content: not supported",
        ),
        (
            "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {environment: NONE}}",
            "secrets.s.environment: no variable NONE",
        ),
        ("services: {a: {extends: a, image: x}}", "services.a.extends: goes in a circle"),
        ("services: {a: {image: x, pid: 'service:b'}}", "service a needs b, which does not exist"),
        ("services: []", "services: a mapping is expected"),
        ("{}", "no services"),
        ("- a", "no mapping"),
        ("a: [", "line 2: "),
    ] {
        let error = format!("{:#}", read_text(text).unwrap_err());
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn numbers_are_printed_as_go_prints_them() {
    let text = "services: {a: {image: x, environment: {V: 3.0, W: 1e3, U: 022, T: 08, C: 1.50}}}";
    let line = command_lines(text).remove(0);
    assert!(line.contains("--env V=3 --env W=1000 --env U=18 --env T=8 --env C=1.5 "), "{line}");
}

#[test]
fn what_has_no_effect_with_docker_compose_either_is_not_refused() {
    let text =
        "services: {a: {image: x, develop: {watch: []}, deploy: {mode: replicated, placement: {constraints: [a]},
        endpoint_mode: vip, restart_policy: {condition: any, delay: 5s, window: 1m}}, stop_grace_period: 0}}
networks: {default: {external: {name: old}}}";
    let want = " --stop-timeout 0 --restart always --network=old:alias=a -- x";
    assert_eq!(command_lines(text), [named("a") + want]);
}

#[test]
fn a_build_is_what_builders_share() {
    for (build, want) in [
        (".", "/src/shop/."),
        ("{context: web, dockerfile: Dockerfile.dev}", "--file=/src/shop/web/Dockerfile.dev /src/shop/web"),
        (
            "{args: {A: 1, B: }, target: t, no_cache: true}",
            "--build-arg A=1 --build-arg B --target t --no-cache /src/shop/.",
        ),
        ("https://x.test/a.git#main", "https://x.test/a.git#main"),
    ] {
        let project = read_text(&format!("services: {{a: {{build: {build}}}}}")).unwrap();
        let service = &project.services[0];
        assert_eq!(service.build.as_ref().unwrap().join(" "), want, "{build}");
        assert_eq!((service.operands.join(" ").as_str(), service.has_own_image), ("-- shop-a", true));
    }
}

#[test]
fn an_image_that_could_be_built_otherwise_is_fetched() {
    let project = read_text("services: {a: {image: x, build: {context: ., ssh: [default]}}}").unwrap();
    assert_eq!((&project.services[0].build, project.services[0].has_own_image), (&None, false));
    let built =
        read_text("services: {a: {build: {context: 'git@x.test:a', dockerfile: d}, pull_policy: always}}").unwrap();
    assert_eq!(built.services[0].build.as_ref().unwrap().join(" "), "--file=d git@x.test:a");
    assert!(!built.services[0].options.contains(&"--pull".to_owned()));
}

#[test]
fn restart_policies_of_deploy_are_docker_compose_s() {
    for (condition, want) in
        [("none", "no"), ("any", "always"), ("always", "always"), ("unless-stopped", "unless-stopped")]
    {
        let text = format!("services: {{a: {{image: x, deploy: {{restart_policy: {{condition: {condition}}}}}}}}}");
        assert!(command_lines(&text)[0].contains(&format!(" --restart {want} ")), "{condition}");
    }
}

#[test]
fn a_later_file_replaces_what_is_tagged() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let base = "services: {a: {image: x, ports: ['80:80'], environment: {A: 1}, cap_add: [A], labels: [l]}}";
    let over = "services: {a: {ports: !override ['81:80'], environment: !reset {}, cap_add: [B], labels: !reset null}}";
    let variables = Variables::new();
    let source = Source { directory: directory.path(), variables: &variables, depth: 0 };
    let value = source.read(&[file("a.yaml", base), file("b.yaml", over)]).unwrap();
    let project = project(&ProjectRequest::default(), &value, Path::new("/src/shop"), &variables).unwrap();
    let want = " --cap-add A --cap-add B --network=shop_default:alias=a --publish 81:80 -- x";
    assert_eq!(without_hash(&project.services[0]), named("a") + want);
    // A list and a mapping of services that are needed.
    let base = "services: {a: {image: x, depends_on: [b]}, b: {image: x}, c: {image: x}}";
    let over = "services: {a: {depends_on: {c: {condition: service_healthy}}}}";
    let value = source.read(&[file("a.yaml", base), file("b.yaml", over)]).unwrap();
    let project = super::project(&ProjectRequest::default(), &value, Path::new("/src/shop"), &variables).unwrap();
    let needed = project.services[2].dependencies.iter().map(|on| (&*on.service, on.condition));
    assert_eq!(
        needed.collect::<Vec<_>>(),
        [("b", service::DependencyCondition::Started), ("c", service::DependencyCondition::Healthy)]
    );
}

#[test]
fn names_come_from_the_file_the_request_or_the_directory() {
    let text = "name: ${TAG:+given}\nservices: {a: {image: x, container_name: one}}\nvolumes: {v: {name: mine}, other: {external: true}, u: }";
    let project = read_text(text).unwrap();
    assert_eq!((&*project.name, &*project.services[0].container), ("given", "one"));
    assert_eq!(project.volumes.iter().map(|name| &**name).collect::<Vec<_>>(), ["mine", "given_u"]);
    for (directory, want) in [("/src/My Shop", "myshop"), ("/", "default"), ("/x/_a", "a")] {
        let empty = Value::Null;
        let name = name_of(&ProjectRequest::default(), &Node::top(&empty), Path::new(directory), &Variables::new());
        assert_eq!(name.unwrap(), want);
    }
    assert!(checked("A").is_err() && checked("").is_err() && checked("a/b").is_err());
}

#[test]
fn a_service_extends_another() {
    let text = "
services:
  base: {image: x, environment: [A=1, B=2], command: [a], links: [web], container_name: b, profiles: [web]}
  web: {extends: {service: base}, environment: {B: 3}, command: [b]}
";
    let request = ProjectRequest { profiles: &["web".to_owned()], ..ProjectRequest::default() };
    let project = read_with(text, &Variables::new(), &request).unwrap();
    let web = project.services.iter().find(|service| service.name == "web").unwrap();
    assert_eq!(web.dependencies, []);
    assert_eq!(without_hash(web), (named("web") + " --env A=1 --env B=3 --network=shop_default:alias=web -- x b"));
}
