use rusqlite::StatementStatus;

use super::super::schema;
use super::*;

/// So many tasks, each with a later update than the one before.
fn tasks(count: usize) -> Connection {
    let db = schema::in_memory();
    for number in 0..count {
        let id = format!("{number:032x}");
        db.execute(
            "INSERT INTO tasks (id, doc, name, status, type, created, last_update, hidden)
             VALUES (?1, ?2, 'n', 'created', 'training', '', ?3, 0)",
            [
                &id,
                &json!({"id": id, "system_tags": []}).to_string(),
                &format!("{number:06}"),
            ],
        )
        .unwrap();
    }
    db
}

#[test]
fn a_page_of_the_newest_tasks_costs_no_more_where_there_are_many() {
    let query = Query {
        order_by: vec![("last_update", true)],
        take: 51,
        // A filter that is no column: SQLite cannot know where the page ends.
        lists: vec![("system_tags", Terms::read(&[json!("-archived")]).unwrap())],
        ..Query::default()
    };
    let order = query.order_in_sql("tasks");
    let (sql, ..) = query.statement("tasks", Hidden::LeftOut, &[], order.as_deref());
    let steps = |count: usize| {
        let db = tasks(count);
        let page = query.run(&db, "tasks", Hidden::LeftOut, &[]).unwrap();
        let newest = format!("{:032x}", count - 1);
        assert_eq!((page.len(), doc::text(&page[0], "id")), (51, &*newest));
        let statement = db.prepare_cached(&sql).unwrap();
        statement.get_status(StatementStatus::VmStep)
    };
    let few = steps(100);
    assert!(few > 0, "the statement was not run under this text");
    assert!(steps(2000) < few * 2);
}
