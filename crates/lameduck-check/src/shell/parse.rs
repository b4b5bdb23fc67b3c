//! Reads shell scripts: POSIX.1-2017 XCU 2, with what bash adds where it is met in practice.

use super::ast::{AndOr, Command, Item, Joint, Kind, List, Pipeline, Redirect, Script, Simple, Word};
use crate::span::Span;

/// How deep constructs may nest. Bash itself gives up far later, but nothing people write comes near.
const DEPTH: usize = 60;

/// Why a script could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub offset: usize,
    pub why: String,
}

/// Reads a script.
pub fn parse(text: &str) -> Result<Script, Unreadable> {
    let mut parser = Parser { text, at: 0, depth: 0, heredocs: Vec::new(), process_substitution: false };
    let list = parser.list(&[])?;
    if parser.at < text.len() {
        return Err(parser.unreadable(format!("{:?} where a command was expected", parser.peek_text())));
    }
    Ok(Script { list, newline_at_end: text.ends_with('\n'), process_substitution: parser.process_substitution })
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    /// Here-documents announced on this line: delimiter, and whether leading tabs are taken off.
    heredocs: Vec<(String, bool)>,
    process_substitution: bool,
}

type Read<T> = Result<T, Unreadable>;

const RESERVED_ENDS: &[&str] = &["then", "else", "elif", "fi", "do", "done", "esac", "}"];

impl Parser<'_> {
    fn unreadable(&self, why: String) -> Unreadable {
        Unreadable { offset: self.at.min(self.text.len()), why }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn byte_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Over some bytes, but not over the end, nor into the middle of a character.
    fn skip(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.text.len());
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
    }

    fn looking_at(&self, what: &str) -> bool {
        self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(what.as_bytes()))
    }

    fn peek_text(&self) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.chars().take_while(|c| !c.is_whitespace()).take(20).collect()
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.unreadable(format!("nested more than {DEPTH} deep")));
        }
        let got = read(self);
        self.depth -= 1;
        got
    }

    /// Blanks, continued lines and comments.
    fn blanks(&mut self) {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.byte_at(1) == Some(b'\n') => self.at += 2,
                Some(b'\\') if self.looking_at("\\\r\n") => self.at += 3,
                Some(b'#') => {
                    while self.byte().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Blanks, newlines, and the here-documents that begin after them.
    fn newlines(&mut self) {
        loop {
            self.blanks();
            if self.byte() != Some(b'\n') {
                return;
            }
            self.newline();
        }
    }

    fn newline(&mut self) {
        self.at += 1;
        for (delimiter, strip) in std::mem::take(&mut self.heredocs) {
            loop {
                let rest = &self.text[self.at..];
                let end = rest.find('\n').unwrap_or(rest.len());
                let line = rest[..end].trim_end_matches('\r');
                self.at = (self.at + end + 1).min(self.text.len());
                let line = if strip { line.trim_start_matches('\t') } else { line };
                if line == delimiter || self.at >= self.text.len() {
                    break;
                }
            }
        }
    }

    /// Whether a reserved word stands here, as a whole word.
    fn reserved(&self, word: &str) -> bool {
        let end = self.text.as_bytes().get(self.at + word.len());
        self.looking_at(word) && end.is_none_or(|byte| b" \t\r\n;&|<>()".contains(byte))
    }

    fn expect(&mut self, word: &str) -> Read<()> {
        self.newlines();
        if self.reserved(word) || (word == ")" && self.looking_at(")")) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.unreadable(format!("read {:?}, expected {word:?}", self.peek_text())))
    }

    fn at_end(&self, ends: &[&str]) -> bool {
        match self.byte() {
            None | Some(b')') => true,
            Some(b';') if self.looking_at(";;") || self.looking_at(";&") => true,
            _ => ends.iter().any(|end| self.reserved(end)),
        }
    }

    fn list(&mut self, ends: &[&str]) -> Read<List> {
        self.nested(|parser| {
            let mut items = Vec::new();
            loop {
                parser.newlines();
                if parser.at_end(ends) {
                    return Ok(List { items });
                }
                let start = parser.at;
                let and_or = parser.and_or()?;
                let span = Span::new(start, parser.at);
                parser.blanks();
                let background = parser.byte() == Some(b'&') && parser.byte_at(1) != Some(b'&');
                if background || (parser.byte() == Some(b';') && !parser.looking_at(";;") && !parser.looking_at(";&")) {
                    parser.at += 1;
                } else if parser.byte() != Some(b'\n') && !parser.at_end(ends) {
                    return Err(parser.unreadable(format!("unexpected {:?}", parser.peek_text())));
                }
                items.push(Item { and_or, background, span });
            }
        })
    }

    fn and_or(&mut self) -> Read<AndOr> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            self.blanks();
            let joint = if self.looking_at("&&") {
                Joint::And
            } else if self.looking_at("||") {
                Joint::Or
            } else {
                return Ok(AndOr { first, rest });
            };
            self.at += 2;
            self.newlines();
            rest.push((joint, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Read<Pipeline> {
        let mut negated = false;
        self.blanks();
        while self.reserved("!") || self.reserved("time") {
            negated |= self.reserved("!");
            self.at += if self.reserved("!") { 1 } else { 4 };
            self.blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.byte() != Some(b'|') || self.looking_at("||") {
                return Ok(Pipeline { negated, commands });
            }
            self.at += if self.looking_at("|&") { 2 } else { 1 };
            self.newlines();
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Read<Command> {
        let start = self.at;
        let kind = self.nested(Self::kind)?;
        let mut redirects = Vec::new();
        if !matches!(kind, Kind::Simple(_) | Kind::Function(..)) {
            self.blanks();
            while let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                self.blanks();
            }
        }
        Ok(Command { kind, redirects, span: Span::new(start, self.at) })
    }

    fn kind(&mut self) -> Read<Kind> {
        if let Some(end) = RESERVED_ENDS.iter().find(|end| self.reserved(end)) {
            return Err(self.unreadable(format!("{end:?} where a command was expected")));
        }
        if self.looking_at("((") && self.arithmetic_ends().is_some() {
            self.at = self.arithmetic_ends().unwrap_or(self.at);
            return Ok(Kind::Test);
        }
        if self.byte() == Some(b'(') {
            self.at += 1;
            let list = self.list(&[])?;
            self.expect(")")?;
            return Ok(Kind::Subshell(list));
        }
        if self.reserved("{") {
            self.at += 1;
            let list = self.list(&["}"])?;
            self.expect("}")?;
            return Ok(Kind::Group(list));
        }
        if self.reserved("[[") {
            return self.double_bracket();
        }
        if self.reserved("if") {
            return self.if_();
        }
        if self.reserved("while") || self.reserved("until") {
            self.at += 5;
            let condition = self.list(&["do"])?;
            self.expect("do")?;
            let body = self.list(&["done"])?;
            self.expect("done")?;
            return Ok(Kind::While(condition, body));
        }
        if self.reserved("for") || self.reserved("select") {
            return self.for_();
        }
        if self.reserved("case") {
            return self.case();
        }
        if self.reserved("function") {
            self.at += 8;
            self.blanks();
            let name = self.word()?.text;
            self.blanks();
            if self.looking_at("(") {
                self.at += 1;
                self.expect(")")?;
            }
            self.newlines();
            return Ok(Kind::Function(name, Box::new(self.command()?)));
        }
        self.simple()
    }

    /// The end of `((...))` that begins here, if it is one.
    fn arithmetic_ends(&self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let (mut depth, mut at) = (0usize, self.at);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'(' => depth += 1,
                b')' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return (bytes.get(at - 1) == Some(&b')')).then_some(at + 1);
                    }
                }
                b'\n' if depth == 0 => return None,
                _ => {}
            }
            at += 1;
        }
        None
    }

    fn double_bracket(&mut self) -> Read<Kind> {
        self.at += 2;
        loop {
            self.newlines();
            match self.byte() {
                None => return Err(self.unreadable("[[ without ]]".to_owned())),
                Some(b']') if self.reserved("]]") => {
                    self.at += 2;
                    return Ok(Kind::Test);
                }
                // Operators and the parentheses of patterns, which no word begins with.
                Some(b'(' | b')' | b'<' | b'>' | b'|' | b'&' | b';') => self.at += 1,
                Some(_) => {
                    self.word()?;
                }
            }
        }
    }

    fn if_(&mut self) -> Read<Kind> {
        let mut arms = Vec::new();
        self.at += 2;
        loop {
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            let body = self.list(&["elif", "else", "fi"])?;
            arms.push((condition, body));
            if self.reserved("elif") {
                self.at += 4;
                continue;
            }
            let otherwise = if self.reserved("else") {
                self.at += 4;
                Some(self.list(&["fi"])?)
            } else {
                None
            };
            self.expect("fi")?;
            return Ok(Kind::If(arms, otherwise));
        }
    }

    fn for_(&mut self) -> Read<Kind> {
        self.at += if self.reserved("for") { 3 } else { 6 };
        self.blanks();
        if self.looking_at("((") {
            self.at = self.arithmetic_ends().ok_or_else(|| self.unreadable("for (( without ))".to_owned()))?;
        } else {
            self.word()?;
            self.newlines();
            if self.reserved("in") {
                self.at += 2;
                loop {
                    self.blanks();
                    match self.byte() {
                        None | Some(b'\n' | b';') => break,
                        Some(_) => {
                            self.word()?;
                        }
                    }
                }
            }
        }
        self.blanks();
        if self.byte() == Some(b';') {
            self.at += 1;
        }
        self.newlines();
        let end = if self.reserved("{") { "}" } else { "done" };
        self.expect(if end == "}" { "{" } else { "do" })?;
        let body = self.list(&[end])?;
        self.expect(end)?;
        Ok(Kind::For(body))
    }

    fn case(&mut self) -> Read<Kind> {
        self.at += 4;
        self.blanks();
        let subject = self.word()?;
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.newlines();
            if self.reserved("esac") {
                self.at += 4;
                return Ok(Kind::Case(subject, arms));
            }
            if self.byte() == Some(b'(') {
                self.at += 1;
            }
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?);
                self.blanks();
                match self.byte() {
                    Some(b'|') => self.at += 1,
                    Some(b')') => break,
                    _ => return Err(self.unreadable(format!("read {:?}, expected ) in case", self.peek_text()))),
                }
            }
            self.at += 1;
            arms.push((patterns, self.list(&["esac"])?));
            self.newlines();
            if self.looking_at(";;&") {
                self.at += 3;
            } else if self.looking_at(";;") || self.looking_at(";&") {
                self.at += 2;
            }
        }
    }

    fn simple(&mut self) -> Read<Kind> {
        let start = self.at;
        let mut simple = Simple::default();
        let mut end = self.at;
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                end = self.at;
                continue;
            }
            match self.byte() {
                None | Some(b'\n' | b';' | b'&' | b'|' | b')') => break,
                Some(b'(') => {
                    // `name() command`
                    if simple.words.len() == 1 && simple.assigns.is_empty() {
                        self.at += 1;
                        self.expect(")")?;
                        self.newlines();
                        let name = simple.words.remove(0).text;
                        return Ok(Kind::Function(name, Box::new(self.command()?)));
                    }
                    return Err(self.unreadable("unexpected (".to_owned()));
                }
                Some(_) => {}
            }
            let word = self.word()?;
            end = self.at;
            if simple.words.is_empty() && assigns(&self.text[word.span.start as usize..word.span.end as usize]) {
                simple.assigns.push(word);
            } else {
                simple.words.push(word);
            }
        }
        if simple.words.is_empty() && simple.assigns.is_empty() && simple.redirects.is_empty() {
            return Err(self.unreadable(format!("read {:?}, expected a command", self.peek_text())));
        }
        simple.span = Span::new(start, end);
        Ok(Kind::Simple(simple))
    }

    fn redirect(&mut self) -> Read<Option<Redirect>> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start && self.byte() == Some(b'{') {
            // `{fd}>file`
            let rest = &self.text[self.at + 1..];
            let name = rest.find('}').filter(|end| {
                rest[..*end].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                    && matches!(rest.as_bytes().get(end + 1), Some(b'<' | b'>'))
            });
            if let Some(end) = name {
                self.at += end + 2;
            }
        }
        let operators = ["&>>", "&>", "<<<", "<<-", "<<", "<>", "<&", ">>", ">&", ">|", "<", ">"];
        let found = operators.iter().find(|operator| self.looking_at(operator));
        let substitution = (self.looking_at("<(") || self.looking_at(">(")) && self.at == start;
        let Some(operator) = found.filter(|_| !substitution) else {
            self.at = start;
            return Ok(None);
        };
        self.at += operator.len();
        self.blanks();
        let target = self.word()?;
        if operator.starts_with("<<") && *operator != "<<<" {
            self.heredocs.push((target.text.clone(), *operator == "<<-"));
        }
        Ok(Some(Redirect { operator: (*operator).to_owned(), target }))
    }

    fn word(&mut self) -> Read<Word> {
        let start = self.at;
        let mut word =
            Word { text: String::new(), literal: true, quoted: false, process: false, span: Span::default() };
        if self.looking_at("<(") || self.looking_at(">(") {
            word.process = true;
            word.literal = false;
            self.process_substitution = true;
            self.at += 2;
            self.list(&[])?;
            self.expect(")")?;
        }
        while let Some(byte) = self.byte() {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b';' | b'&' | b'|' | b'<' | b'>' | b')' => break,
                b'(' => {
                    let before = self.text[start..self.at].bytes().last();
                    // An array, `name=( ... )`, or bash's extended patterns, `@(a|b)`.
                    if !matches!(before, Some(b'=' | b'?' | b'*' | b'+' | b'@' | b'!')) {
                        break;
                    }
                    word.literal = false;
                    self.parenthesized()?;
                }
                b'\\' => {
                    if self.byte_at(1) == Some(b'\n') {
                        self.at += 1;
                    } else {
                        let rest = self.text.get(self.at + 1..).unwrap_or_default();
                        word.text.extend(rest.chars().next());
                        self.at += rest.chars().next().map_or(0, char::len_utf8);
                        word.quoted = true;
                    }
                    self.at += 1;
                }
                b'\'' => {
                    word.quoted = true;
                    let rest = &self.text[self.at + 1..];
                    let end = rest.find('\'').ok_or_else(|| self.unreadable("' without its end".to_owned()))?;
                    word.text.push_str(&rest[..end]);
                    self.at += end + 2;
                }
                b'"' => self.double_quoted(&mut word)?,
                b'$' if self.byte_at(1) == Some(b'\'') => self.ansi_quoted(&mut word)?,
                b'$' | b'`' => self.expansion(&mut word)?,
                b'*' | b'?' | b'[' | b'~' => {
                    // Patterns and the tilde expand, but not into another program's name.
                    word.text.push(byte as char);
                    self.at += 1;
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let c = rest.chars().next().unwrap_or_default();
                    word.text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if self.at == start {
            return Err(self.unreadable(format!("read {:?}, expected a word", self.peek_text())));
        }
        word.span = Span::new(start, self.at);
        Ok(word)
    }

    fn ansi_quoted(&mut self, word: &mut Word) -> Read<()> {
        word.quoted = true;
        self.at += 2;
        loop {
            match self.byte() {
                None => return Err(self.unreadable("$' without its end".to_owned())),
                Some(b'\\') => self.skip(2),
                Some(b'\'') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => {
                    let c = self.text.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
                    word.text.push(c);
                    self.at += c.len_utf8().max(1);
                }
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Read<()> {
        word.quoted = true;
        self.at += 1;
        loop {
            match self.byte() {
                None => return Err(self.unreadable("\" without its end".to_owned())),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let next = self.text.get(self.at + 1..).and_then(|rest| rest.chars().next());
                    match next {
                        Some(c @ ('"' | '\\' | '$' | '`')) => word.text.push(c),
                        Some('\n') | None => {}
                        Some(c) => word.text.extend(['\\', c]),
                    }
                    self.at += 1 + next.map_or(0, char::len_utf8);
                }
                Some(b'$' | b'`') => self.expansion(word)?,
                Some(_) => {
                    let c = self.text.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
                    word.text.push(c);
                    self.at += c.len_utf8().max(1);
                }
            }
        }
    }

    /// `$X`, `${X...}`, `$(...)`, `$((...))` or backquotes; kept as written.
    fn expansion(&mut self, word: &mut Word) -> Read<()> {
        let start = self.at;
        if self.byte() == Some(b'`') {
            self.at += 1;
            while self.byte() != Some(b'`') {
                match self.byte() {
                    None => return Err(self.unreadable("` without its end".to_owned())),
                    Some(b'\\') => self.skip(2),
                    Some(_) => self.at += 1,
                }
            }
            self.at += 1;
        } else {
            self.at += 1;
            match self.byte() {
                Some(b'{') => self.braces()?,
                Some(b'(') if self.looking_at("((") && self.arithmetic_ends().is_some() => {
                    self.at = self.arithmetic_ends().unwrap_or(self.at);
                }
                Some(b'(') => {
                    self.at += 1;
                    self.list(&[])?;
                    self.expect(")")?;
                }
                Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
                    while self.byte().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                        self.at += 1;
                    }
                }
                Some(byte) if byte.is_ascii_digit() || b"@*#?$!-".contains(&byte) => self.at += 1,
                // A lone dollar is itself.
                _ => {
                    word.text.push('$');
                    return Ok(());
                }
            }
        }
        word.literal = false;
        word.text.push_str(&self.text[start..self.at]);
        Ok(())
    }

    /// `{...}` of a parameter expansion, with what nests in it.
    fn braces(&mut self) -> Read<()> {
        self.nested(|parser| {
            parser.at += 1;
            let mut scratch =
                Word { text: String::new(), literal: true, quoted: false, process: false, span: Span::default() };
            loop {
                match parser.byte() {
                    None => return Err(parser.unreadable("${ without }".to_owned())),
                    Some(b'}') => {
                        parser.at += 1;
                        return Ok(());
                    }
                    Some(b'\\') => parser.skip(2),
                    Some(b'"') => parser.double_quoted(&mut scratch)?,
                    Some(b'$' | b'`') => parser.expansion(&mut scratch)?,
                    Some(b'\'') => {
                        // Inside double quotes an apostrophe is itself; outside it quotes. Take whichever closes first.
                        let rest = &parser.text[parser.at + 1..];
                        let (quote, brace) = (rest.find('\''), rest.find('}'));
                        parser.at += match (quote, brace) {
                            (Some(quote), Some(brace)) if quote < brace => quote + 2,
                            _ => 1,
                        };
                    }
                    Some(_) => parser.at += 1,
                }
            }
        })
    }

    /// `( ... )` of an array or an extended pattern, read as words.
    fn parenthesized(&mut self) -> Read<()> {
        self.nested(|parser| {
            parser.at += 1;
            loop {
                parser.newlines();
                match parser.byte() {
                    None => return Err(parser.unreadable("( without )".to_owned())),
                    Some(b')') => {
                        parser.at += 1;
                        return Ok(());
                    }
                    Some(b'|' | b'&' | b';' | b'<' | b'>') => parser.at += 1,
                    Some(b'(') => parser.parenthesized()?,
                    Some(_) => {
                        parser.word()?;
                    }
                }
            }
        })
    }
}

/// `NAME=...`, `NAME+=...` or `NAME[...]=...`.
fn assigns(raw: &str) -> bool {
    let Some(equals) = raw.find('=') else { return false };
    let name = raw[..equals].trim_end_matches('+');
    let name = name.split_once('[').map_or(name, |(name, _)| name);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
