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
        order: Order::read(&["-last_update"]).unwrap(),
        take: 51,
        // A filter that is no column: SQLite cannot know where the page ends.
        lists: vec![("system_tags", Terms::read(&[json!("-archived")]).unwrap())],
        ..Query::default()
    };
    let order = query.order.in_sql("tasks");
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

#[test]
fn an_order_by_what_is_no_field_is_one_by_ids_and_no_error_of_the_database() {
    let db = tasks(3);
    for field in ["", "-", "a..b", "'"] {
        let query = Query {
            order: Order::read(&[field]).unwrap(),
            take: 10,
            ..Query::default()
        };
        let found = query.run(&db, "tasks", Hidden::LeftOut, &[]).unwrap();
        let ids: Vec<&str> = found.iter().map(|doc| doc::text(doc, "id")).collect();
        let all: Vec<String> = (0..3).map(|number| format!("{number:032x}")).collect();
        assert_eq!(ids, all, "{field:?}");
    }
}

#[test]
fn an_order_by_more_fields_than_the_database_takes_is_refused() {
    assert!(Order::read(&["name"; 64]).is_ok());
    let refusal = Order::read(&["name"; 65]).unwrap_err();
    assert_eq!((refusal.code, refusal.subcode), (400, 16));
}
