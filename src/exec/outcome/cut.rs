//! PURE: text and lines -> as much of them as fits into so many bytes.

/// The newest lines that fit into so many bytes, in order; a single one that does not fit is cut.
pub(super) fn newest(lines: &[String], bytes: usize) -> Vec<String> {
    let mut left = bytes;
    let mut chosen = Vec::new();
    for line in lines.iter().rev() {
        if line.len() >= left {
            if chosen.is_empty() {
                chosen.push(bounded(line, bytes));
            }
            break;
        }
        left -= line.len() + 1;
        chosen.push(line.clone());
    }
    chosen.reverse();
    chosen
}

/// `text`, cut to at most that many bytes at a character's border.
pub fn bounded(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
