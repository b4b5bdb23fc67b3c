use lameduck_core::{Cause, Severity};

use super::Check;
use crate::finding::Finding;
use crate::world::World;
use crate::edit::Edit;

pub const CHECK: Check = Check::World(check);

fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for hpa in world.own_hpas() {
        let Some(window) = hpa.stabilization.as_ref().filter(|window| window.value < 60.0 && !hpa.disabled) else { continue };
        let message = format!("scale-down follows {} s of lower load: every dip ends pods", window.value);
        found.push(
            Finding::new(Cause::CutMidResponse, Severity::Note, window.at, message)
                .help("stabilizationWindowSeconds: 300, the default")
                .fix(false, "pods end after 300 s of lower load", vec![Edit {
                    file: window.at.file,
                    span: window.at.span,
                    text: "300".to_owned(),
                }]),
        );
    }
    found
}
