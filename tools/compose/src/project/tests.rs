use super::*;

fn read_text(text: &str) -> Result<Project> {
    let variables = Variables::from([("TAG".to_owned(), "1.27".to_owned())]);
    let value = document(text, &variables)?;
    project(&Request::default(), &value, Path::new("/src/shop"), &variables)
}

fn command_lines(text: &str) -> Vec<String> {
    let project = read_text(text).unwrap();
    project.services.iter().map(|service| crate::script::arguments(service).join(" ")).collect()
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
                + " --cap-drop ALL --read-only --stop-timeout 90 --user 999:999 --cpus 0.5 --memory 64m --network-alias db \
                   --health-cmd pg_isready -U 'my db' --health-interval 5s --health-retries 3 \
                   --entrypoint docker-entrypoint.sh postgres -x postgres",
            named("web")
                + " --env A=1 --env B=x y --env C --network-alias web --publish 8080:80 --publish 127.0.0.1:8443:443 \
                   --volume /src/shop/site:/usr/share/nginx/html:ro --volume shop_cache:/var/cache \
                   --mount type=tmpfs,target=/t,tmpfs-size=1m nginx:1.27 nginx -g daemon off;",
        ]
    );
}

#[test]
fn each_of_several_networks_is_a_bridge() {
    let options = |networks: &str, of: &str| {
        let lines = command_lines(&format!("networks: {networks}\nservices: {{a: {{image: x{of}}}}}"));
        lines[0].strip_prefix(&named("a")).unwrap().trim().to_owned()
    };
    for (networks, of, want) in [
        ("{front: }", ", networks: [front]", ""),
        ("{front: , back: }", "", ""),
        ("{front: , back: }", ", networks: [default]", ""),
        ("{front: , default: }", "", "--network shop_default "),
        ("{front: , back: }", ", networks: {back: {aliases: [b]}}", "--network shop_back "),
        ("{front: , back: {name: lab, driver: bridge}}", ", networks: [back]", "--network lab "),
        ("{front: , back: {external: true}}", ", networks: [back]", "--network back "),
        ("{front: , back-of-the-house: }", ", networks: [back-of-the-house]", "--network br-320f738e132c "),
    ] {
        let alias = if of.contains("aliases") { " --network-alias b" } else { "" };
        assert_eq!(options(networks, of), format!("{want}--network-alias a{alias} x"), "{networks} {of}");
    }
}

#[test]
fn what_is_wrong_is_told_by_its_place() {
    for (text, want) in [
        ("services: {a: {}}", "services.a: no image"),
        (
            "services: {a: {build: .}}",
            "services.a: has only a build section: images are built elsewhere, so image is needed",
        ),
        ("services: {a: {image: x, lnk: y}}", "services.a.lnk: not supported"),
        ("services: {a: {image: x, ports: [{published: 1}]}}", "services.a.ports[0]: no target"),
        ("services: {a: {image: x, volumes: ['v:/v']}}", "services.a.volumes[0]: no volume v under volumes"),
        ("services: {a: {image: x, tty: 2}}", "services.a.tty: true or false is expected"),
        ("services: {a: {image: x, command: 'it''s'}}", "services.a.command: a quotation mark has no partner"),
        ("services: {a: {image: '${NONE:?}'}}", "services.a.image: NONE: not set"),
        (
            "services: {a: {image: x, healthcheck: {test: [x]}}}",
            "services.a.healthcheck.test: begins with CMD, CMD-SHELL or NONE",
        ),
        ("services: {a: {image: x, networks: [b]}}", "services.a.networks[0]: no network b under networks"),
        (
            "networks: {a: , b: }\nservices: {a: {image: x, networks: [a, b]}}",
            "services.a.networks: a service stands on one network here",
        ),
        (
            "networks: {a: , b: {internal: true}}\nservices: {a: {image: x, networks: [b]}}",
            "services.a.networks[0]: networks.b.internal: not supported",
        ),
        ("services: {a: {image: x, scale: 2}}", "services.a.scale: a service has one container here"),
        ("services: {a: {image: x, secrets: [s]}}", "services.a.secrets[0]: no s under secrets"),
        ("services: {a: {extends: a, image: x}}", "services.a.extends: goes in a circle"),
        ("services: {a: {image: x, pid: 'service:b'}}", "services: no service b"),
        ("include: [b.yaml]", "include: not supported"),
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
fn names_come_from_the_file_the_request_or_the_directory() {
    let text = "name: ${TAG:+given}\nservices: {a: {image: x, container_name: one}}\nvolumes: {v: {name: mine}, w: {external: true}, u: }";
    let project = read_text(text).unwrap();
    assert_eq!((&*project.name, &*project.services[0].container), ("given", "one"));
    assert_eq!(project.volumes, ["mine", "given_u"]);
    for (directory, want) in [("/src/My Shop", "myshop"), ("/", "default"), ("/x/_a", "a")] {
        let empty = Value::Null;
        let name = project_name(&Request::default(), &Node::top(&empty), Path::new(directory), &Variables::new());
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
    let value = document(text, &Variables::new()).unwrap();
    let request = Request { profiles: &["web".to_owned()], ..Request::default() };
    let project = project(&request, &value, Path::new("/src/shop"), &Variables::new()).unwrap();
    let web = project.services.iter().find(|service| service.name == "web").unwrap();
    assert_eq!(web.dependencies, []);
    assert_eq!(
        crate::script::arguments(web).join(" "),
        (named("web") + " --env A=1 --env B=3 --network-alias web x b")
    );
}

#[test]
fn env_files_are_read_as_docker_reads_them() {
    let directory = std::env::temp_dir().join(format!("compose-env-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("env");
    std::fs::write(&path, "# a\n\nexport A=1\nB = \"x # y\"\nC=z # comment\nD='q'\n").unwrap();
    let variables = variables(std::slice::from_ref(&path), &directory).unwrap();
    std::fs::write(&path, "A\n").unwrap();
    let error = super::variables(&[path], &directory).unwrap_err().to_string();
    std::fs::remove_dir_all(&directory).unwrap();
    let got: Vec<_> = ["A", "B", "C", "D"].map(|name| variables[name].clone()).into();
    assert_eq!(got, ["1", "x # y", "z", "q"]);
    assert!(error.ends_with("line 1: no ="), "{error}");
}
