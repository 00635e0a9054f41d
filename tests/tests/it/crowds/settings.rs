//! Reads the recommended settings for many users behind one address from docs/operations.md.

/// The document, and the first cell of the table.
const DOCUMENT: &str = include_str!("../../../../docs/operations.md");
const TABLE: &str = "| people behind one address |";

/// The configuration lines for this number of users.
pub(super) fn documented(users: u32) -> String {
    let (_, table) = DOCUMENT.split_once(TABLE).expect("docs/operations.md has no such table");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace([',', '`'], "")).collect()
    };
    let mut lines = table.lines();
    let keys = cells(lines.next().unwrap());
    let row = lines
        .map(cells)
        .find(|row| row[0] == users.to_string())
        .expect("the table has no row for this number");
    keys.iter().zip(&row[1..]).map(|(key, value)| format!("{key} = {value}\n")).collect()
}
