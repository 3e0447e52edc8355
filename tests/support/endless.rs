//! Databases whose table `project` is a view.

use crate::support::{Made, SCHEMA};

/// A database with a view in place of the table `project`.
pub(crate) fn with_projects(view: &str) -> Made {
    let made = Made::of(&SCHEMA.replace("CREATE TABLE project", "CREATE TABLE ignored"));
    made.session("ses_1", 1);
    made.run("UPDATE session SET project_id = 'p'");
    made.run(&format!("CREATE VIEW project AS {view}"));
    made
}

/// A database whose listing never ends: it looks for a project that is none of endlessly many.
pub(crate) fn endless() -> Made {
    with_projects(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
         SELECT i AS id, '/usr' AS worktree FROM n WHERE i < 0",
    )
}
