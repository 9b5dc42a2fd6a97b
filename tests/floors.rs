//! The floors of the house: which module may use which. `src/lib.rs` shows them as a table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

/// The modules, from the top. One may use those of its own line and of the lines below.
const FLOORS: [&[&str]; 8] = [
    &["main", "cli"],
    &["server"],
    &["contract"],
    &["api"],
    &["request", "store"],
    &["auth", "limits"],
    &["problem", "task", "changes", "request_id", "schema", "clock"],
    &["telemetry", "config"],
];

fn floor(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or_else(|| panic!("on which floor is `{module}`?"))
}

#[test]
fn no_module_uses_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = String::new();
    let mut open = vec![source.clone()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let inside = path.strip_prefix(&source).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code: String = text.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
        for used in modules_used(&code) {
            if floor(used) < floor(module) {
                wrong += &format!(
                    "src/{} uses `{used}`, which stands above `{module}`. From there on down it may use {:?}.\n",
                    inside.display(),
                    FLOORS[floor(module)..].concat()
                );
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The modules that stand after `crate::`: one, or those of a list in braces.
fn modules_used(code: &str) -> Vec<&str> {
    let starts = ["crate::", "taskpact::"].iter().flat_map(|root| code.match_indices(root));
    let mut used = Vec::new();
    for (at, root) in starts {
        let (mut depth, mut is_module) = (0, true);
        for part in code[at + root.len()..].split_inclusive(|c: char| !c.is_alphanumeric() && c != '_') {
            let (word, end) = part.split_at(part.len() - 1);
            if is_module && !word.is_empty() {
                used.push(word);
                is_module = false;
            }
            match end {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 1 => is_module = true,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

#[test]
fn a_list_of_imports_is_read_whole() {
    let code =
        "use crate::{\n    auth::Owner,\n    task::{NewTask, Task},\n    clock,\n};\nlet x = crate::schema::uuid();";
    assert_eq!(modules_used(code), ["auth", "task", "clock", "schema"]);
}
