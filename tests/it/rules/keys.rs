use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use latchkey::keys::{KeyFiles, KeyState};

use crate::{
    on_stacks,
    support::{Process, Stack, StackKind, Test},
};

pub fn tests() -> Vec<Test> {
    on_stacks![&[StackKind::Embedded];
        the_folders_of_keys_and_data_are_closed_to_others,
        what_is_written_once_is_never_written_over,
        keys_generate_makes_a_next_key_where_nobody_holds_it,
    ]
}

fn jwt(stack: &Stack) -> PathBuf {
    stack.dir.path().join("jwt")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn generate(stack: &Stack, settings: &[(&str, &str)]) -> String {
    let mut all = stack.settings().await;
    all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let output = Process::command(stack.dir.path(), &all).args(["keys", "generate"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
// ---- paste from here

async fn the_folders_of_keys_and_data_are_closed_to_others(stack: Stack) {
    // A checkout has the folder of keys open to all.
    fs::DirBuilder::new().mode(0o755).create(jwt(&stack)).unwrap();
    fs::set_permissions(jwt(&stack), fs::Permissions::from_mode(0o755)).unwrap();
    let _app = stack.app().await;
    assert_eq!(mode(&jwt(&stack)), 0o700);
    assert_eq!(mode(&stack.dir.path().join("data")), 0o700);
}

async fn what_is_written_once_is_never_written_over(stack: Stack) {
    let app = stack.app().await;
    let (files, before) = (KeyFiles::new(&jwt(&stack)), fs::read(jwt(&stack).join("secret")).unwrap());
    files.make_secret(&app.ambient).unwrap();
    assert_eq!(fs::read(jwt(&stack).join("secret")).unwrap(), before);
    let names = fs::read_dir(jwt(&stack)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let drafts: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
    assert!(drafts.is_empty(), "{drafts:?}");
}

async fn keys_generate_makes_a_next_key_where_nobody_holds_it(stack: Stack) {
    let app = stack.app().await;
    let next = app.keys.list().into_iter().find(|key| key.state == KeyState::Next).unwrap().kid;
    drop(app);
    fs::remove_file(jwt(&stack).join(format!("{next}.pem"))).unwrap();
    generate(&stack, &[]).await;
    let app = stack.app().await;
    let held = app.keys.list().into_iter().filter(|key| key.state == KeyState::Next && key.held).count();
    assert_eq!(held, 1, "{:?}", app.keys.list());
}
