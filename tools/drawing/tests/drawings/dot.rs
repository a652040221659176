//! A strict reader of the part of Graphviz's language that drawings use.

use std::collections::BTreeSet;

/// What a digraph has.
pub struct Digraph {
    pub nodes: BTreeSet<String>,
    pub edges: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Id(String),
    Quoted,
    Html,
    Arrow,
    Sign(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_ascii_whitespace() => {}
            '"' => {
                loop {
                    match rest.next().ok_or("a string does not end")? {
                        '"' => break,
                        '\\' => {
                            rest.next();
                        }
                        c if c.is_control() => return Err(format!("{c:?} in a string")),
                        _ => {}
                    }
                }
                tokens.push(Token::Quoted);
            }
            '<' => {
                let (mut depth, mut html) = (1, String::new());
                while depth > 0 {
                    let c = rest.next().ok_or("a label does not end")?;
                    depth += match c {
                        '<' => 1,
                        '>' => -1,
                        _ => 0,
                    };
                    if depth > 0 {
                        html.push(c);
                    }
                }
                super::xml::parse(&html)?;
                tokens.push(Token::Html);
            }
            '-' => match rest.next() {
                Some('>') => tokens.push(Token::Arrow),
                other => return Err(format!("- before {other:?}")),
            },
            '{' | '}' | '[' | ']' | ';' | ',' | '=' | ':' => tokens.push(Token::Sign(c)),
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let mut id = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    id.push(c);
                }
                tokens.push(Token::Id(id));
            }
            c => return Err(format!("character {c:?}")),
        }
    }
    Ok(tokens)
}

/// Reads a digraph.
pub fn parse(text: &str) -> Result<Digraph, String> {
    let tokens = tokens(text)?;
    let sign = |c: char| Token::Sign(c);
    let mut graph = Digraph { nodes: BTreeSet::new(), edges: 0 };
    let body = match tokens.as_slice() {
        [Token::Id(word), Token::Id(_), Token::Sign('{'), body @ .., Token::Sign('}')]
            if word == "digraph" =>
        {
            body
        }
        other => return Err(format!("no digraph: {:?}", other.first())),
    };
    let mut used: BTreeSet<String> = BTreeSet::new();
    for statement in body.split(|token| *token == sign(';')).filter(|statement| !statement.is_empty()) {
        let at = statement.iter().position(|token| *token == sign('[')).unwrap_or(statement.len());
        let (head, attributes) = statement.split_at(at);
        if !attributes.is_empty() {
            let [_, inner @ .., Token::Sign(']')] = attributes else {
                return Err(format!("no ]: {attributes:?}"));
            };
            for attribute in inner.split(|token| *token == sign(',')) {
                match attribute {
                    [Token::Id(_), Token::Sign('='), Token::Id(_) | Token::Quoted | Token::Html] => {}
                    other => return Err(format!("attribute {other:?}")),
                }
            }
        }
        let head: Vec<&Token> = head.iter().collect();
        match head.as_slice() {
            [Token::Id(word)] if word == "node" || word == "edge" => {}
            [Token::Id(name)] => {
                if !graph.nodes.insert(name.clone()) {
                    return Err(format!("{name} twice"));
                }
            }
            [Token::Id(_), Token::Sign('='), Token::Id(_) | Token::Quoted] if attributes.is_empty() => {}
            [Token::Id(a), Token::Arrow, Token::Id(b)]
            | [
                Token::Id(a),
                Token::Sign(':'),
                Token::Id(_),
                Token::Arrow,
                Token::Id(b),
                Token::Sign(':'),
                Token::Id(_),
            ] => {
                used.extend([a.clone(), b.clone()]);
                graph.edges += 1;
            }
            other => return Err(format!("statement {other:?}")),
        }
    }
    match used.difference(&graph.nodes).next() {
        None => Ok(graph),
        Some(name) => Err(format!("{name} is not defined")),
    }
}

#[test]
fn the_reader_is_strict() {
    let read = parse("digraph g { a=b; n0 [label=\"x\\\"y\", s=<<b>z</b>>]; n1; n0 -> n1; }").unwrap();
    assert_eq!((read.nodes.len(), read.edges), (2, 1));
    for bad in [
        "graph g { }",
        "digraph g { n0 -> n1; }",
        "digraph g { n0 [label=\"x]; }",
        "digraph g { n0 [label=<<b>z>]; }",
        "digraph g { n0; n0; }",
        "digraph g { n0 [label=\"a\nb\"]; }",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}
