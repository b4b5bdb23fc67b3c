//! From which line of a template a rendered line comes. A template engine does not say, so the two texts are laid side by
//! side: what stands in both is the same line, and what stands between was made by the action between.

/// The place in the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// From 1.
    pub line: u32,
    /// Where the line's text begins, from 1.
    pub column: u32,
    /// The line stands in the template as it was rendered, so its columns are those of the template too.
    pub same: bool,
}

/// Larger products of lines are not laid side by side; a template of a thousand lines is rare.
const CELLS: usize = 4 << 20;

/// A line of a template.
struct Line<'t> {
    text: &'t str,
    /// What stands around its actions.
    literals: Vec<&'t str>,
    /// It has an action.
    acts: bool,
}

/// Where each line of the rendered text comes from.
pub fn origins(template: &str, rendered: &str) -> Vec<Origin> {
    let (from, to) = (template_lines(template), rendered.lines().collect::<Vec<_>>());
    let pairs = if from.len().saturating_mul(to.len()) <= CELLS { aligned(&from, &to) } else { vec![None; to.len()] };
    let mut out = Vec::with_capacity(to.len());
    let mut last = 0;
    for (n, pair) in pairs.iter().enumerate() {
        let line = pair.unwrap_or_else(|| {
            let next = pairs[n..].iter().flatten().next().copied().unwrap_or(from.len());
            made_by(&from, last, next, to[n])
        });
        last = line;
        let column = from.get(line).map_or(0, |line| line.text.len() - line.text.trim_start().len());
        let same = from.get(line).is_some_and(|line| line.text.trim_end() == to[n].trim_end());
        out.push(Origin { line: line as u32 + 1, column: column as u32 + 1, same });
    }
    out
}

/// The template's line that made one which is not in it: a line that fits (a loop comes back to it), else the action between.
fn made_by(from: &[Line<'_>], last: usize, next: usize, line: &str) -> usize {
    let near = |n: &usize| n.abs_diff(last);
    let fits = (0..from.len()).filter(|n| weight(&from[*n], line) > 1).min_by_key(near);
    // A line further away than a loop is long says the same by chance.
    let fits = fits.filter(|n| near(n) <= 40 && !line.trim().is_empty());
    let acts = || (last..next.min(from.len())).find(|n| from[*n].acts && from[*n].is_maker());
    fits.or_else(acts).unwrap_or(last)
}

impl Line<'_> {
    /// Its action puts something in: no condition, loop, comment or assignment.
    fn is_maker(&self) -> bool {
        let Some((_, action)) = self.text.split_once("{{") else { return false };
        let word = action.trim_start_matches(['-', ' ']).split_whitespace().next().unwrap_or_default();
        !matches!(word, "if" | "else" | "end" | "range" | "with" | "define" | "block" | "end}}" | "end-}}")
            && !word.starts_with(['/', '$'])
    }
}

fn template_lines(template: &str) -> Vec<Line<'_>> {
    let mut open = false;
    let mut lines = Vec::new();
    for text in template.lines() {
        let was_open = open;
        let (mut literals, mut rest, mut acts) = (Vec::new(), text, open);
        loop {
            if open {
                let Some((_, after)) = rest.split_once("}}") else { break };
                (rest, open) = (after, false);
            } else {
                let Some((before, after)) = rest.split_once("{{") else {
                    literals.push(rest);
                    break;
                };
                literals.push(before);
                (rest, open, acts) = (after, true, true);
            }
        }
        if was_open {
            literals.insert(0, "");
        }
        if open {
            literals.push("");
        }
        lines.push(Line { text, literals, acts });
    }
    lines
}

/// How much speaks for the rendered line being this one of the template; 0: it is not.
fn weight(from: &Line<'_>, line: &str) -> u32 {
    let line = line.trim();
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
    if !from.acts {
        return if from.text.trim() == line && !line.is_empty() { 3 } else { 0 };
    }
    let Some((first, rest)) = from.literals.split_first() else { return 0 };
    let Some((last, middle)) = rest.split_last() else { return 0 };
    // Values may be quoted by the engine, or not; blanks around actions are its own affair.
    let Some(mut text) = line.strip_prefix(first.trim_start()) else { return 0 };
    for literal in middle {
        let Some(at) = text.find(literal.trim()) else { return 0 };
        text = &text[at + literal.trim().len()..];
    }
    if !text.ends_with(last.trim_end()) {
        return 0;
    }
    match from.literals.iter().map(|literal| letters(literal)).sum::<usize>() {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    }
}

/// The heaviest way to pair lines in order.
fn aligned(from: &[Line<'_>], to: &[&str]) -> Vec<Option<usize>> {
    let wide = to.len() + 1;
    let mut best = vec![0u32; (from.len() + 1) * wide];
    for a in (0..from.len()).rev() {
        for b in (0..to.len()).rev() {
            let weight = weight(&from[a], to[b]);
            let paired = if weight > 0 { best[(a + 1) * wide + b + 1] + weight } else { 0 };
            best[a * wide + b] = paired.max(best[(a + 1) * wide + b]).max(best[a * wide + b + 1]);
        }
    }
    let mut out = vec![None; to.len()];
    let (mut a, mut b) = (0, 0);
    while a < from.len() && b < to.len() {
        let here = best[a * wide + b];
        let weight = weight(&from[a], to[b]);
        if weight > 0 && here == best[(a + 1) * wide + b + 1] + weight {
            out[b] = Some(a);
            (a, b) = (a + 1, b + 1);
        } else if here == best[(a + 1) * wide + b] {
            a += 1;
        } else {
            b += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, rendered: &str, expect: &[u32]) {
        let lines: Vec<u32> = origins(template, rendered).iter().map(|origin| origin.line).collect();
        assert_eq!(lines, expect, "{rendered}");
    }

    #[test]
    fn lines_are_found_again() {
        check("kind: Pod\nname: {{ .Values.name }}\nspec: {}\n", "kind: Pod\nname: web\nspec: {}\n", &[1, 2, 3]);
        // A condition leaves lines out.
        check("a: 1\n{{- if .x }}\nb: 2\n{{- end }}\nc: 3\n", "a: 1\nc: 3\n", &[1, 5]);
        // What an action makes is the action's.
        check(
            "a: 1\nlabels:\n  {{- include \"l\" . | nindent 2 }}\nc: 3\n",
            "a: 1\nlabels:\n  x: y\n  z: w\nc: 3\n",
            &[1, 2, 3, 3, 4],
        );
        // A loop comes back.
        check(
            "env:\n{{- range .e }}\n- name: {{ .n }}\n{{- end }}\nx: y\n",
            "env:\n- name: a\n- name: b\nx: y\n",
            &[1, 3, 3, 5],
        );
        // The comment that says where it comes from.
        check("kind: Pod\n", "# Source: c/templates/p.yaml\nkind: Pod\n", &[1, 1]);
        check("", "kind: Pod\n", &[1]);
    }
}
