//! `AdmissionReview`, `admission.k8s.io/v1`: what the API server asks, and what it is told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::patch::Operation;

/// The API server shows so much of one warning (Kubernetes, admission webhook response).
const LONGEST_WARNING: usize = 256;
/// All warnings of one answer may have 4096 bytes; what is above that is dropped.
const MOST_WARNINGS: usize = 4096;

/// A question.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Request {
    /// What the answer must repeat.
    pub uid: String,
    /// What kind of object it is.
    pub kind: Kind,
    /// The namespace, where the object has one.
    #[serde(default)]
    pub namespace: String,
    /// CREATE, UPDATE and others.
    #[serde(default)]
    pub operation: String,
    /// The part of the object that is meant, as in `scale`.
    #[serde(default, rename = "subResource")]
    pub sub_resource: Option<String>,
    /// The object as it would be.
    #[serde(default)]
    pub object: Value,
    /// The object as it is, where it is there already.
    #[serde(default, rename = "oldObject")]
    pub old_object: Value,
}

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Kind {
    /// Its group; empty for the core one.
    #[serde(default)]
    pub group: String,
    /// Its name.
    pub kind: String,
}

/// What is no question.
#[derive(Debug, thiserror::Error)]
#[error("not an AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
pub struct Malformed(String);

/// Reads a question.
pub fn read(body: &[u8]) -> Result<Request, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Review {
        api_version: String,
        kind: String,
        request: Option<Request>,
    }
    let review: Review = serde_json::from_slice(body).map_err(|error| Malformed(error.to_string()))?;
    if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
        let of = |text: &str| text.chars().take(40).collect::<String>();
        return Err(Malformed(format!("read {:?} of {:?}", of(&review.kind), of(&review.api_version))));
    }
    review.request.ok_or_else(|| Malformed("there is no request in it".to_owned()))
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Why the object is refused, if it is.
    pub denied: Option<String>,
    /// What to change.
    pub patch: Vec<Operation>,
    /// What `kubectl apply` shows.
    pub warnings: Vec<String>,
}

/// The answer to the question of that uid.
pub fn write(uid: &str, verdict: &Verdict) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Response<'a> {
        uid: &'a str,
        allowed: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<Value>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        patch_type: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        patch: Option<String>,
    }
    let patch = (!verdict.patch.is_empty() && verdict.denied.is_none())
        .then(|| STANDARD.encode(serde_json::to_vec(&verdict.patch).unwrap_or_default()));
    let response = Response {
        uid,
        allowed: verdict.denied.is_none(),
        status: verdict.denied.as_ref().map(|why| json!({"code": 403, "reason": "Forbidden", "message": why})),
        warnings: fitting(&verdict.warnings),
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
    };
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    serde_json::to_vec(&review).unwrap_or_default()
}

/// As much of them as is shown, the last one saying how many are not.
fn fitting(warnings: &[String]) -> Vec<String> {
    const ROOM: usize = 64;
    let mut out = Vec::new();
    let mut bytes = 0;
    for (n, warning) in warnings.iter().enumerate() {
        let warning = shortened(&format!("lameduck: {warning}"), LONGEST_WARNING);
        bytes += warning.len();
        if bytes > MOST_WARNINGS - ROOM {
            out.push(format!("lameduck: {} more: see lameduck check", warnings.len() - n));
            break;
        }
        out.push(warning);
    }
    out
}

/// In one line: control characters would be refused or swallowed on the way to a terminal.
fn shortened(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= most {
        return text;
    }
    let mut end = most - "...".len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_question_is_refused() {
        let check = |text: &str, expect: &str| {
            let said = read(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(expect), "{}: {said}", &text[..text.len().min(200)]);
        };
        check("", "EOF");
        check("{", "EOF");
        check("[1]", "expected");
        check(r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#, "v1beta1");
        check(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request");
        check(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#, "string");
        let deep = "[".repeat(100_000);
        check(&format!(r#"{{"apiVersion":"","kind":"","request":{{"object":{deep}"#), "recursion");
    }

    #[test]
    fn an_answer_repeats_the_uid_and_keeps_to_what_is_shown() {
        let warnings = (0..100).map(|n| format!("{n} {}", "é\n".repeat(300))).collect();
        let json: Value = serde_json::from_slice(&write("7", &Verdict { warnings, ..Verdict::default() })).unwrap();
        assert_eq!(json["response"]["uid"], "7");
        assert_eq!(json["response"]["allowed"], true);
        let shown: Vec<&str> =
            json["response"]["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(shown.iter().all(|one| one.len() <= LONGEST_WARNING && !one.contains('\n')));
        assert!(shown.iter().map(|one| one.len()).sum::<usize>() <= MOST_WARNINGS);
        let last = shown.last().unwrap();
        assert_eq!(*last, format!("lameduck: {} more: see lameduck check", 100 - (shown.len() - 1)));
    }

    #[test]
    fn what_is_refused_is_not_changed() {
        let patch = vec![Operation { op: "add", path: "/x".to_owned(), value: Value::Null }];
        let verdict = Verdict { denied: Some("no".to_owned()), patch, warnings: Vec::new() };
        let json: Value = serde_json::from_slice(&write("7", &verdict)).unwrap();
        assert_eq!(json["response"]["allowed"], false);
        assert_eq!(json["response"]["status"]["message"], "no");
        assert!(json["response"].get("patch").is_none());
    }
}
