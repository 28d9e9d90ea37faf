//! The access control list of an entry, as the pax key `SCHILY.acl.access` has it.
//!
//! GNU tar writes one with `--acls`, and bsdtar writes one by default, where a file has
//! more than a mode. bsdtar then takes the executable bits from the list. GNU tar and
//! Python take them from the header. So a list is ignored if both ways give the same
//! result, and refused if not.

/// Returns whether a file with this list has the executable bit of its header in every
/// reader.
///
/// Only lists as libacl and libarchive write them agree: bsdtar guesses what another
/// text means. The entries are in any order, with commas or newlines between them.
/// libarchive adds a numeric id to an entry of a named user or group.
///
/// A reader that restores the list gives the file's group the permissions of the mask
/// (acl(5), "Correspondence between ACL entries and file permission bits").
pub fn agrees(list: &[u8], executable: bool) -> bool {
    // Of the owner, the owning group, the others and the mask.
    let mut base = [None; 4];
    let Ok(list) = std::str::from_utf8(list) else {
        return false;
    };
    for entry in list.trim_end_matches('\n').split([',', '\n']) {
        let fields: Vec<&str> = entry.split(':').collect();
        let (slot, permissions) = match *fields {
            ["user", "", permissions] => (Some(0), permissions),
            ["group", "", permissions] => (Some(1), permissions),
            ["other", "", permissions] => (Some(2), permissions),
            ["mask", "", permissions] => (Some(3), permissions),
            ["user" | "group", name, permissions] if is_plain(name) => (None, permissions),
            ["user" | "group", name, permissions, id] if is_plain(name) && is_plain(id) => {
                (None, permissions)
            }
            _ => return false,
        };
        let Some(executes) = executes(permissions) else {
            return false;
        };
        if let Some(slot) = slot {
            if base[slot].is_some() {
                return false;
            }
            base[slot] = Some(executes);
        }
    }
    let [Some(owner), Some(group), Some(others), mask] = base else {
        return false;
    };
    let without_list = owner || group || others;
    let with_list = owner || mask.unwrap_or(group) || others;
    without_list == executable && with_list == executable
}

/// Returns whether a name or an id has no character with a meaning in a list: bsdtar
/// ends a field at a space, and reads a comment after `#`.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c != '#' && !c.is_whitespace())
}

/// Returns whether permissions in the form `rwx` have the `x`.
fn executes(permissions: &str) -> Option<bool> {
    match permissions.as_bytes() {
        [b'r' | b'-', b'w' | b'-', execute @ (b'x' | b'-')] => Some(*execute == b'x'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_gnu_tar_and_bsdtar_are_read() {
        for (list, executable) in [
            (
                "user::rw-\nuser:daemon:r--\ngroup::r--\nmask::r--\nother::r--",
                false,
            ),
            (
                "user::rw-\nuser:daemon:r--\ngroup::r--\nmask::r--\nother::r--\n",
                false,
            ),
            (
                "user::rwx,group::r-x,other::r-x,user:daemon:rwx:1,mask::rwx",
                true,
            ),
            ("user::rw-,group::r--,other::r--", false),
        ] {
            assert!(agrees(list.as_bytes(), executable), "{list}");
            assert!(!agrees(list.as_bytes(), !executable), "{list}");
        }
    }

    #[test]
    fn a_mask_that_differs_from_the_group_never_agrees() {
        for list in [
            "user::rw-,group::r--,other::r--,user:daemon:rwx:1,mask::rwx",
            "user::rw-,group::r-x,other::r--,user:daemon:rwx:1,mask::rw-",
        ] {
            assert!(!agrees(list.as_bytes(), true), "{list}");
            assert!(!agrees(list.as_bytes(), false), "{list}");
        }
    }

    #[test]
    fn another_text_never_agrees() {
        for list in [
            "",
            "user::rw-",
            "user::rw-,group::r--",
            "user::rw-,user::rw-,group::r--,other::r--",
            "user::rw-,group::r--,other::r--,",
            "u::rw-,g::r--,o::r--",
            "user::rw-,group::r--,other:r--",
            "user::rw-:5,group::r--,other::r--",
            "user::rw-,group::r--,other::r--,mask:x:rwx",
            "user::RW-,group::r--,other::r--",
            "user::r,group::r--,other::r--",
            "user::rw-,group::r--,other::r--,default:user::rwx",
            "user::rw-,group::r--,other::r--,#",
            "user::rw-,group::r--,other::r--,user:a#b:rwx",
            "user::rw-,group::r--,other::r--,user:a b:rwx",
            " user::rw-,group::r--,other::r--",
        ] {
            assert!(!agrees(list.as_bytes(), false), "{list}");
            assert!(!agrees(list.as_bytes(), true), "{list}");
        }
        assert!(!agrees(
            b"user::rw-,group::r--,other::r--,user:\xff:r--",
            false
        ));
    }

    /// bsdtar would read another list than this program.
    #[test]
    fn a_name_or_an_id_that_another_reader_cuts_is_refused() {
        for field in [
            "dae#mon:rwx:1",
            "daemon:rwx:1#",
            "dae mon:rwx:1",
            "daemon:rwx:",
            "da#e:rwx",
        ] {
            let list = format!("user::rw-,group::r--,other::r--,user:{field}");
            assert!(!agrees(list.as_bytes(), false), "{list}");
        }
    }
}
