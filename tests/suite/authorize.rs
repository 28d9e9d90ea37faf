//! `deploy-shell-admin authorize` prints the line for a key.

use std::fs;
use std::process::Command;

use crate::operator::{failed, operator, text};
use crate::site::{BIN, Reply, Site, generate_key, write_file};

fn authorize(site: &Site, rest: &[&str], input: &[u8]) -> Reply {
    let mut args = vec!["authorize", "--config", text(site.config_path())];
    args.extend(rest);
    operator(site, &args, input)
}

#[test]
fn authorize_prints_a_line_that_works() {
    let site = Site::new();
    let public = generate_key(&site.dir().join("key-laptop"));
    let file = site.dir().join("key-laptop.pub");
    let config = site.config_path().display();
    for (allow, tail) in [
        (&[][..], String::new()),
        (&["--allow", "list"], " --allow list".to_owned()),
        (&["--allow", "list,files"], " --allow list,files".to_owned()),
        (
            &["--allow", "receive,swap"],
            " --allow receive,swap".to_owned(),
        ),
    ] {
        let expected = format!(
            "restrict,command=\"{BIN} serve --config {config} --key laptop{tail}\" {public}"
        );
        let mut args = vec!["--key", "laptop"];
        args.extend(allow);
        assert_eq!(authorize(&site, &args, public.as_bytes()).ok(), expected);
        args.push(text(&file));
        assert_eq!(authorize(&site, &args, b"").ok(), expected);
    }

    let line = authorize(
        &site,
        &["--key", "laptop", "--allow", "list", text(&file)],
        b"",
    )
    .ok();
    write_file(&site.dir().join("authorized_keys"), 0o644, line.as_bytes());
    assert!(site.ssh("laptop", "list").ok().contains("RELEASE"));
    site.ssh("laptop", "rollback").refused(77, "denied");
}

#[test]
fn authorize_accepts_the_key_types_of_ssh_keygen() {
    let site = Site::new();
    for (kind, bits) in [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "521"),
        ("rsa", "3072"),
    ] {
        let label = format!("{kind}-{bits}");
        let path = site.dir().join(format!("key-{label}"));
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", "a comment"]);
        keygen.arg("-f").arg(&path);
        site.run(keygen, b"").ok();
        let public = fs::read_to_string(path.with_extension("pub")).expect("the key");
        let line = authorize(&site, &["--key", &label], public.as_bytes()).ok();
        assert!(line.starts_with("restrict,command=\"/"), "{line}");
        assert!(line.ends_with(&format!("\" {public}")), "{line}");

        // sshd accepts the line, and the audit names the key as ssh-keygen does.
        write_file(&site.dir().join("authorized_keys"), 0o644, line.as_bytes());
        let before = site.audit_lines().len();
        site.ssh(&label, "list").ok();
        let mut keygen = Command::new("ssh-keygen");
        keygen.arg("-lf").arg(&path);
        let fingerprint = site.run(keygen, b"").ok();
        let fingerprint = fingerprint.split(' ').nth(1).expect("the fingerprint");
        let audited = site.audit_lines().split_off(before);
        assert!(
            audited.iter().all(|line| line.contains(fingerprint)),
            "{fingerprint}: {audited:?}"
        );
    }
    // A key on a token, as `ssh-keygen -t ed25519-sk` writes it.
    let token = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIFiAjf5\
                 vcH1mVv4jsDdh6ixHZEpQpEOQGBnb2zQpHpZlAAAABHNzaDo= token\n";
    assert!(
        authorize(&site, &["--key", "a"], token.as_bytes())
            .ok()
            .ends_with(token)
    );
}

#[test]
fn authorize_refuses_all_but_one_plain_public_key() {
    let site = Site::new();
    let path = site.dir().join("key-laptop");
    let public = generate_key(&path);
    let private = fs::read_to_string(&path).expect("the private key");
    let words: Vec<&str> = public.trim().split(' ').collect();
    let (kind, key) = (words[0], words[1]);
    for bad in [
        String::new(),
        "\n".to_owned(),
        "# a comment\n".to_owned(),
        private,
        format!("{public}{public}"),
        format!("{public}\n{public}"),
        format!("# a comment\n{public}"),
        format!("restrict {public}"),
        format!("command=\"sh\" {public}"),
        format!("no-pty,{public}"),
        format!("environment=\"A=b\" {public}"),
        kind.to_owned(),
        key.to_owned(),
        format!("{kind} {}", &key[..40]),
        format!("{kind} {key}AAAA"),
        format!("{kind} !{key}"),
        format!("ssh-rsa {key}"),
        format!("ssh-unknown {key}"),
        format!("ssh-ed25519-cert-v01@openssh.com {key}"),
        format!("{kind} {key} one\rtwo"),
        format!("{kind} {key} one\0two"),
        format!("{kind} {key} \u{1b}[2J"),
        format!("{kind} {key} {}", "x".repeat(100_000)),
        "1024 35 1234567890 old\n".to_owned(),
        "---- BEGIN SSH2 PUBLIC KEY ----\n".to_owned(),
    ] {
        let reply = authorize(&site, &["--key", "laptop"], bad.as_bytes());
        let shown: String = bad.chars().take(60).collect();
        assert!(matches!(reply.code, 64 | 65), "{shown:?}: {reply:?}");
        assert_eq!(reply.stdout, "", "{shown:?}");
        assert!(
            reply.stderr.starts_with("deploy-shell: "),
            "{shown:?}: {reply:?}"
        );
        assert!(!reply.stderr.contains("PRIVATE KEY"), "{reply:?}");
    }
    failed(&authorize(&site, &["--key", "laptop"], b"\xff\xfe"));
    failed(&authorize(
        &site,
        &["--key", "laptop", "/nonexistent.pub"],
        b"",
    ));
    failed(&authorize(
        &site,
        &["--key", "laptop", text(site.dir())],
        b"",
    ));
}

#[test]
fn authorize_refuses_invalid_labels_and_verbs() {
    let site = Site::new();
    let public = generate_key(&site.dir().join("key-laptop"));
    let long = "x".repeat(65);
    for label in [
        "", " ", "a b", "-a", ".a", "_a", "@a", "a\"", "a'", "a\\", "a$b", "a;b", "a\nb", "a\n",
        "a,b", "a/b", "a=b", "é", &long,
    ] {
        let reply = authorize(&site, &[&format!("--key={label}")], public.as_bytes());
        assert!(matches!(reply.code, 64 | 65), "{label:?}: {reply:?}");
        assert_eq!(reply.stdout, "", "{label:?}");
    }
    for verbs in [
        "",
        "all",
        "List",
        "list,",
        ",list",
        "list list",
        "list;swap",
        "list,check",
        "*",
    ] {
        let args = ["--key", "a", &format!("--allow={verbs}")];
        let reply = authorize(&site, &args, public.as_bytes());
        assert!(matches!(reply.code, 64 | 65), "{verbs:?}: {reply:?}");
        assert_eq!(reply.stdout, "", "{verbs:?}");
    }
    let longest = "x".repeat(64);
    for label in ["a", "0", "ci", "A.b_c-d@e.example", &longest] {
        let line = authorize(&site, &["--key", label], public.as_bytes()).ok();
        assert!(line.contains(&format!(" --key {label}\" ")), "{line}");
    }
}

/// A shell splits the forced command into words, and sshd reads it between double
/// quotes of an `authorized_keys` line.
#[test]
fn authorize_refuses_paths_that_a_key_line_cannot_hold() {
    let site = Site::new();
    let public = generate_key(&site.dir().join("key-laptop"));
    for name in [
        "a b", "a\"b", "a'b", "a$b", "a;b", "a\\b", "a\nb", "a*b", "a#b", "a&b",
    ] {
        let directory = site.dir().join(name);
        fs::create_dir(&directory).expect("a directory");
        let config = directory.join("blog.toml");
        fs::copy(site.config_path(), &config).expect("a copy");
        let args = ["authorize", "--config", text(&config), "--key", "a"];
        failed(&operator(&site, &args, public.as_bytes()));
    }
}
