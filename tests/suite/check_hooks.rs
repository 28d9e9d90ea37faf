//! The findings of `check` about programs of hooks that cannot start.

use crate::check::{added, check, codes, quiet_site};
use crate::site::{set_mode, write_file};

#[test]
fn a_hook_that_the_account_cannot_start_is_found() {
    let site = quiet_site();
    let program = site.dir().join("hook");
    // Others may search the directory, so that the account gets to the program.
    set_mode(site.dir(), 0o755);
    write_file(&program, 0o755, b"#!/bin/sh\nexit 0\n");
    let hook = format!(
        "[[hooks.after_swap]]\ncommand = [\"{}\"]\n",
        program.display()
    );
    site.configure(&hook);
    let before = codes(&check(&site));
    for (mode, text) in [
        (0o644, "#!/bin/sh\n"),
        (0o755, "#!/nonexistent/interpreter\n"),
    ] {
        write_file(&program, mode, text.as_bytes());
        let reply = check(&site);
        assert_eq!(added(&before, &reply), ["hook-unusable"], "{reply:?}");
    }
    std::fs::remove_file(&program).expect("the program");
    assert_eq!(added(&before, &check(&site)), ["hook-missing"]);
}
