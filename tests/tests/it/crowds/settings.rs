//! The settings for many people behind one address, as docs/operations.md tells them. It sets
//! nothing itself.

/// The document, and where its table begins.
const DOCUMENT: &str = include_str!("../../../../docs/operations.md");
const TABLE: &str = "| people behind one address |";

/// The lines of a configuration for so many people, as the table has them.
pub(super) fn documented(people: u32) -> String {
    let (_, table) = DOCUMENT.split_once(TABLE).expect("the document has the table");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace([',', '`'], "")).collect()
    };
    let mut lines = table.lines();
    let keys = cells(lines.next().unwrap());
    let row = lines.map(cells).find(|row| row[0] == people.to_string()).expect("the table has this row");
    keys.iter().zip(&row[1..]).map(|(key, value)| format!("{key} = {value}\n")).collect()
}
