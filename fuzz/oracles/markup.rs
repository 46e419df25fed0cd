//! An own, strict reader of HTML as the status page writes it: every element ends, attributes are
//! quoted, and nothing can run.

/// Elements that have no end.
const VOID: [&str; 4] = ["input", "link", "meta", "!DOCTYPE"];

/// What may stand in a page; nothing here runs, loads or embeds anything.
const ELEMENTS: [&str; 42] = [
    "a",
    "b",
    "body",
    "button",
    "caption",
    "circle",
    "code",
    "details",
    "div",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "head",
    "header",
    "html",
    "label",
    "li",
    "line",
    "main",
    "nav",
    "option",
    "p",
    "rect",
    "section",
    "select",
    "span",
    "style",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "th",
    "thead",
    "time",
    "title",
    "tr",
    "ul",
];

/// The text of a page, and where it leads.
#[derive(Debug, Default)]
pub struct Markup {
    /// Each text between two tags, with the names of the elements around it.
    pub texts: Vec<(String, String)>,
    /// The targets of links.
    pub links: Vec<String>,
}

/// Reads a page; panics where it is not as a careful writer writes it.
pub fn read(page: &str) -> Markup {
    let mut markup = Markup::default();
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some((text, after)) = rest.split_once('<') {
        markup.texts.push((open.join("/"), unescaped(text)));
        if let Some(after) = after.strip_prefix('/') {
            let (name, after) = after.split_once('>').expect("a tag ends");
            assert_eq!(open.pop(), Some(name), "before {:?}", start(after));
            rest = after;
            continue;
        }
        let end = after.find([' ', '>', '/']).expect("a tag ends");
        let (name, after) = after.split_at(end);
        let is_void = VOID.contains(&name);
        assert!(is_void || ELEMENTS.contains(&name), "<{name}>");
        let (is_closed, after) = attributes(name, after, &mut markup);
        rest = after;
        if name == "style" {
            // Its content is the exporter's own.
            rest = rest.split_once("</style>").expect("the style ends").1;
        } else if !is_void && !is_closed {
            open.push(name);
        }
    }
    assert!(
        open.is_empty() && rest.trim().is_empty(),
        "{open:?} {rest:?}"
    );
    markup
}

/// Reads ` name="value"` up to the end of the tag: whether it closes itself, and the rest.
fn attributes<'a>(element: &str, mut rest: &'a str, markup: &mut Markup) -> (bool, &'a str) {
    let mut seen = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return (true, after);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (false, after);
        }
        let end = rest.find(['=', ' ', '>', '/']).expect("a tag ends");
        let (name, after) = rest.split_at(end);
        assert!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
            "an attribute: {:?}",
            start(rest)
        );
        assert!(!name.starts_with("on") && name != "style", "{name} can run");
        assert!(!seen.contains(&name), "{name} twice in <{element}>");
        seen.push(name);
        let Some(after) = after.strip_prefix("=\"") else {
            assert!(!after.starts_with('='), "no quotes: {:?}", start(rest));
            rest = after;
            continue;
        };
        let (value, after) = after.split_once('"').expect("a value ends");
        let is_icon = value.starts_with("data:image/svg+xml,");
        assert!(is_icon || !value.contains('<'), "{value:?}");
        if matches!(name, "href" | "action") {
            markup.links.push(unescaped(value));
        }
        rest = after;
    }
}

/// Text without character references; panics at what a browser could read otherwise.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';').expect("a reference ends");
        out.push(match name {
            "amp" | "#38" => '&',
            "lt" | "#60" => '<',
            "gt" | "#62" => '>',
            "quot" | "#34" => '"',
            "#39" => '\'',
            _ => panic!("an unknown reference: &{name};"),
        });
        rest = after;
    }
    assert!(!rest.contains('>'), "{rest:?}");
    out + rest
}

fn start(text: &str) -> String {
    text.chars().take(80).collect()
}
