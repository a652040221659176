//! A strict reader of the XML that drawings are: well-formed, no entity but the five of XML and numbers.

/// What an SVG has.
pub struct Document {
    /// Names of elements, in order.
    pub elements: Vec<String>,
    attributes: Vec<(String, String)>,
    /// Text between tags, unescaped.
    pub texts: Vec<String>,
    /// Width and height of the whole.
    pub size: (f64, f64),
    /// Where `use` elements stand.
    pub squares: Vec<(f64, f64)>,
}

impl Document {
    pub fn count(&self, element: &str) -> usize {
        self.elements.iter().filter(|name| *name == element).count()
    }

    pub fn count_with(&self, attribute: &str) -> usize {
        self.attributes.iter().filter(|(name, _)| name == attribute).count()
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut parts = text.split('&');
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        let (entity, rest) = part.split_once(';').ok_or_else(|| format!("bare & before {part:?}"))?;
        out.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "#39" => '\'',
            other => return Err(format!("entity {other:?}")),
        });
        out.push_str(rest);
    }
    Ok(out)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':')
}

/// The attributes of a tag.
fn attributes(mut text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(found);
        }
        let (name, rest) = text.split_once("=\"").ok_or_else(|| format!("no attribute: {text:?}"))?;
        let (value, rest) = rest.split_once('"').ok_or_else(|| format!("no end: {rest:?}"))?;
        if !is_name(name) || value.contains('<') || found.iter().any(|(known, _)| known == name) {
            return Err(format!("attribute {name:?} = {value:?}"));
        }
        found.push((name.to_string(), unescaped(value)?));
        text = rest;
    }
}

/// Reads a document.
pub fn parse(text: &str) -> Result<Document, String> {
    let forbidden = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{fffe}' | '\u{ffff}');
    if let Some(c) = text.chars().find(|c| forbidden(*c)) {
        return Err(format!("character {c:?}"));
    }
    let mut document = Document {
        elements: Vec::new(),
        attributes: Vec::new(),
        texts: Vec::new(),
        size: (0.0, 0.0),
        squares: Vec::new(),
    };
    let mut open: Vec<String> = Vec::new();
    let mut parts = text.trim_end().split('<');
    if parts.next() != Some("") {
        return Err("text before the root".to_string());
    }
    for part in parts {
        let (tag, text) = part.split_once('>').ok_or_else(|| format!("no end of tag: {part:?}"))?;
        if text.contains("]]>") {
            return Err("]]> in text".to_string());
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop().as_deref() != Some(name) {
                return Err(format!("{name} is closed and is not open"));
            }
        } else {
            let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, rest) = tag.split_once(' ').unwrap_or((tag, ""));
            if !is_name(name) || open.is_empty() && !document.elements.is_empty() {
                return Err(format!("element {name:?}"));
            }
            let found = attributes(rest)?;
            let number = |wanted: &str| {
                let value = found.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.parse());
                value.and_then(Result::ok).unwrap_or(f64::NAN)
            };
            if document.elements.is_empty() {
                document.size = (number("width"), number("height"));
            }
            if name == "use" {
                document.squares.push((number("x"), number("y")));
            }
            document.elements.push(name.to_string());
            document.attributes.extend(found);
            if !closed {
                open.push(name.to_string());
            }
        }
        if !text.trim().is_empty() {
            if open.is_empty() {
                return Err(format!("text behind the root: {text:?}"));
            }
            document.texts.push(unescaped(text)?);
        }
    }
    if open.is_empty() { Ok(document) } else { Err(format!("{open:?} are open")) }
}

#[test]
fn the_reader_is_strict() {
    assert_eq!(parse("<a b=\"1\"><c/>x &amp; y</a>").unwrap().texts, ["x & y"]);
    for bad in [
        "<a>",
        "<a></b>",
        "<a b=1/>",
        "<a b=\"1\" b=\"2\"/>",
        "<a>&nbsp;</a>",
        "<a/><b/>",
        "<a>\0</a>",
        "x<a/>",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}
