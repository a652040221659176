//! The report of a recovery as text, a line for each fact, for other processes to read.

use std::fmt::Write;
use std::time::Duration;

use crate::open::RecoveryReport;

impl RecoveryReport {
    /// Lines of `name value`; a line break in a value is written as `\n`, a backslash as two.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut fact = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} {}", value.to_string().replace('\\', "\\\\").replace('\n', "\\n"));
        };
        fact("manifest", &self.manifest);
        fact("checkpoint_seq", &self.checkpoint_seq);
        fact("replayed", &self.replayed);
        fact("last_seq", &self.last_seq);
        if let Some(torn) = &self.torn_tail {
            fact("torn_tail", torn);
        }
        if let Some(damage) = &self.log_damage {
            fact("log_damage", damage);
        }
        if let Some(damage) = &self.shared_damage {
            fact("shared_damage", damage);
        }
        self.rejected_manifests.iter().for_each(|rejected| fact("rejected_manifest", rejected));
        fact("removed_files", &self.removed_files);
        let phases = self.phases;
        fact("files_ns", &phases.files.as_nanos());
        fact("image_ns", &phases.image.as_nanos());
        fact("objects_ns", &phases.objects.as_nanos());
        fact("log_ns", &phases.log.as_nanos());
        fact("bytes_read", &phases.bytes_read);
        fact("took_ns", &self.took.as_nanos());
        text
    }

    /// The report that such a text says; lines that it does not know are passed over.
    pub(crate) fn from_text(text: &str) -> RecoveryReport {
        let mut report = RecoveryReport::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let number = || value.parse().unwrap_or_default();
            match name {
                "manifest" => report.manifest = number(),
                "checkpoint_seq" => report.checkpoint_seq = number(),
                "replayed" => report.replayed = number(),
                "last_seq" => report.last_seq = number(),
                "torn_tail" => report.torn_tail = Some(unescaped(value)),
                "log_damage" => report.log_damage = Some(unescaped(value)),
                "shared_damage" => report.shared_damage = Some(unescaped(value)),
                "rejected_manifest" => report.rejected_manifests.push(unescaped(value)),
                "removed_files" => report.removed_files = value.parse().unwrap_or_default(),
                "files_ns" => report.phases.files = Duration::from_nanos(number()),
                "image_ns" => report.phases.image = Duration::from_nanos(number()),
                "objects_ns" => report.phases.objects = Duration::from_nanos(number()),
                "log_ns" => report.phases.log = Duration::from_nanos(number()),
                "bytes_read" => report.phases.bytes_read = number(),
                "took_ns" => report.took = Duration::from_nanos(number()),
                _ => {}
            }
        }
        report
    }
}

fn unescaped(value: &str) -> String {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(if characters.next() == Some('n') { '\n' } else { '\\' }),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back() {
        let report = RecoveryReport {
            manifest: 7,
            checkpoint_seq: 100,
            replayed: 11,
            last_seq: 111,
            torn_tail: Some("wal/1 at byte 4096: a\nline \\n and \\ more".to_string()),
            log_damage: Some("wal/1 is damaged".to_string()),
            shared_damage: Some("SHARED is damaged".to_string()),
            rejected_manifests: vec!["one".to_string(), "two\n".to_string()],
            removed_files: 3,
            phases: crate::restore::Phases {
                log: Duration::from_nanos(7),
                bytes_read: 9,
                ..Default::default()
            },
            took: Duration::from_micros(1_234_567),
        };
        let text = report.to_text();
        assert_eq!(format!("{:?}", RecoveryReport::from_text(&text)), format!("{report:?}"));
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            RecoveryReport::from_text(&text[..end]);
        }
        assert_eq!(RecoveryReport::from_text("strange\nmanifest x\n").manifest, 0);
    }
}
