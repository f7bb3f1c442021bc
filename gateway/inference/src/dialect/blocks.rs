//! One block after the other: what a chat stream says in any order, in the order that other languages need.
//!
//! A chat chunk may carry text, reasoning and parts of several tool calls at once. Anthropic's stream, and the way
//! OpenAI's Responses are told in practice, has one open block at a time. So exactly one block is live and told as it
//! comes; what belongs to a later one waits. A live text ends as soon as something else begins. A live tool call ends
//! when its arguments are complete JSON, so suppliers that send one call after the other (all known ones) are told
//! without delay, and one that mixes them is still told right.

use serde::de::IgnoredAny;

use super::Untold;
use super::heard::Piece;

/// Most blocks of one answer.
const BLOCKS_MAX: usize = 1_024;

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Reasoning,
    Text,
    Refusal,
    Tool { id: String, name: String },
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next block begins.
    Start(Kind),
    /// Something is added to it.
    Piece(String),
    /// It is complete.
    Stop,
}

#[derive(Debug)]
struct Block {
    kind: Known,
    /// What waits to be told; of a tool call all there is, to know when it is complete.
    text: String,
    /// So many bytes of `text` were told.
    told: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    Plain(Kind),
    Tool { index: u64, id: Option<String>, name: Option<String> },
}

/// The blocks of one answer.
#[derive(Debug)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    /// The block that is told now; those before it are complete.
    live: usize,
    started: bool,
    /// For tool calls that have no id of their own.
    number: u128,
    bytes: usize,
    bytes_max: usize,
}

impl Blocks {
    pub(crate) fn new(number: u128, bytes_max: usize) -> Self {
        Self { blocks: Vec::new(), live: 0, started: false, number, bytes: 0, bytes_max }
    }

    /// Takes a piece in and says what can be told.
    pub(crate) fn hear(&mut self, piece: Piece, steps: &mut Vec<Step>) -> Result<(), Untold> {
        let text = match piece {
            Piece::Reasoning(text) => self.plain(Kind::Reasoning, text),
            Piece::Text(text) => self.plain(Kind::Text, text),
            Piece::Refusal(text) => self.plain(Kind::Refusal, text),
            Piece::Tool { index, id, name, arguments } => self.tool(index, id, name, arguments)?,
        };
        self.bytes += text;
        if self.bytes > self.bytes_max || self.blocks.len() > BLOCKS_MAX {
            return Err(Untold("answer too large"));
        }
        self.tell(steps, false)
    }

    /// The stream is over: what waits is told.
    pub(crate) fn finish(&mut self, steps: &mut Vec<Step>) -> Result<(), Untold> {
        self.tell(steps, true)
    }

    /// Whether any tool was called.
    pub(crate) fn has_tools(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.kind, Known::Tool { .. }))
    }

    fn plain(&mut self, kind: Kind, text: String) -> usize {
        let bytes = text.len();
        let kind = Known::Plain(kind);
        match self.blocks.last_mut() {
            Some(last) if last.kind == kind => last.text.push_str(&text),
            _ => self.blocks.push(Block { kind, text, told: 0 }),
        }
        bytes
    }

    fn tool(
        &mut self,
        index: u64,
        id: Option<String>,
        name: Option<String>,
        arguments: String,
    ) -> Result<usize, Untold> {
        let bytes = arguments.len();
        let known = self.blocks.iter_mut().enumerate().rev().find_map(|(at, block)| match &mut block.kind {
            // Some suppliers number all their calls 0 and tell them apart by their ids.
            Known::Tool { index: i, id: known, name } if *i == index => {
                let same = known.is_none() || id.is_none() || *known == id;
                same.then_some((at, known, name, &mut block.text))
            }
            _ => None,
        });
        match known {
            None => {
                let kind = Known::Tool { index, id, name };
                self.blocks.push(Block { kind, text: arguments, told: 0 });
            }
            Some((at, ..)) if at < self.live => {
                if !arguments.trim_ascii().is_empty() {
                    return Err(Untold("more arguments for a tool call that was complete"));
                }
            }
            Some((_, known_id, known_name, text)) => {
                *known_id = known_id.take().or(id);
                *known_name = known_name.take().or(name);
                text.push_str(&arguments);
            }
        }
        Ok(bytes)
    }

    fn tell(&mut self, steps: &mut Vec<Step>, over: bool) -> Result<(), Untold> {
        loop {
            let (number, live, last) = (self.number, self.live, self.live + 1 == self.blocks.len());
            let Some(block) = self.blocks.get_mut(live) else {
                return Ok(());
            };
            if !self.started {
                let kind = match &block.kind {
                    Known::Plain(kind) => kind.clone(),
                    Known::Tool { name: None, .. } if !over => return Ok(()),
                    Known::Tool { name: None, .. } => return Err(Untold("a tool call without a name")),
                    Known::Tool { id, name: Some(name), .. } => {
                        let id = id.clone().unwrap_or_else(|| format!("call_{number:032x}_{live}"));
                        Kind::Tool { id, name: name.clone() }
                    }
                };
                steps.push(Step::Start(kind));
                self.started = true;
            }
            if block.told < block.text.len() {
                steps.push(Step::Piece(block.text[block.told..].to_owned()));
                block.told = block.text.len();
            }
            if matches!(block.kind, Known::Plain(_)) {
                block.text.clear();
                block.told = 0;
            }
            let complete = over
                || (!last
                    && match block.kind {
                        Known::Plain(_) => true,
                        Known::Tool { .. } => serde_json::from_str::<IgnoredAny>(&block.text).is_ok(),
                    });
            if !complete {
                return Ok(());
            }
            steps.push(Step::Stop);
            block.text = String::new();
            self.live += 1;
            self.started = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(index: u64, id: &str, arguments: &str) -> Piece {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Piece::Tool { index, id: known(id), name: known(id), arguments: arguments.to_owned() }
    }

    fn told(pieces: Vec<Piece>) -> (Vec<Step>, Vec<Step>) {
        let mut blocks = Blocks::new(7, 1_000);
        let (mut live, mut end) = (Vec::new(), Vec::new());
        for piece in pieces {
            blocks.hear(piece, &mut live).unwrap();
        }
        blocks.finish(&mut end).unwrap();
        (live, end)
    }

    fn line(steps: &[Step]) -> String {
        let one = |step: &Step| match step {
            Step::Start(Kind::Tool { id, .. }) => format!("<{id}:"),
            Step::Start(kind) => format!("<{kind:?}:"),
            Step::Piece(text) => format!("{text}|"),
            Step::Stop => ">".to_owned(),
        };
        steps.iter().map(one).collect()
    }

    #[test]
    fn calls_that_come_one_after_the_other_are_told_as_they_come() {
        let (live, end) = told(vec![
            Piece::Reasoning("hm".into()),
            Piece::Text("a".into()),
            Piece::Text("b".into()),
            call(0, "x", ""),
            call(0, "", "{\"a\""),
            call(0, "", ":1}"),
            call(1, "y", "{"),
            call(1, "", "}"),
        ]);
        assert_eq!(line(&live), "<Reasoning:hm|><Text:a|b|><x:{\"a\"|:1}|><y:{|}|");
        assert_eq!(line(&end), ">");
    }

    #[test]
    fn calls_that_come_mixed_wait_for_each_other() {
        let (live, end) = told(vec![
            call(0, "x", ""),
            call(1, "y", "[1"),
            call(0, "", "{"),
            Piece::Text("t".into()),
            call(1, "", "]"),
            call(0, "", "}"),
        ]);
        assert_eq!(line(&live), "<x:{|}|><y:[1]|><Text:t|");
        assert_eq!(line(&end), ">");
    }

    #[test]
    fn calls_that_all_are_number_0_are_told_apart_by_their_ids() {
        let (live, end) = told(vec![call(0, "x", "{}"), call(0, "y", "{}")]);
        assert_eq!(line(&live) + &line(&end), "<x:{}|><y:{}|>");
    }

    #[test]
    fn a_call_without_arguments_or_id_is_told_at_the_end() {
        let (live, end) =
            told(vec![Piece::Tool { index: 3, id: None, name: None, arguments: "{".into() }, {
                Piece::Tool { index: 3, id: None, name: Some("f".into()), arguments: "}".into() }
            }]);
        assert_eq!(line(&live) + &line(&end), format!("<call_{:032x}_0:{{}}|>", 7));
        let mut blocks = Blocks::new(0, 10);
        let mut steps = Vec::new();
        blocks
            .hear(Piece::Tool { index: 0, id: None, name: None, arguments: String::new() }, &mut steps)
            .unwrap();
        assert_eq!(blocks.finish(&mut steps), Err(Untold("a tool call without a name")));
    }

    #[test]
    fn what_is_complete_stays_complete_and_an_answer_has_its_bounds() {
        let mut blocks = Blocks::new(0, 8);
        let mut steps = Vec::new();
        for piece in [call(0, "x", "{}"), call(1, "y", "")] {
            blocks.hear(piece, &mut steps).unwrap();
        }
        blocks.hear(call(0, "", " "), &mut steps).unwrap();
        assert!(blocks.hear(call(0, "", "1"), &mut steps).is_err());
        assert_eq!(blocks.hear(Piece::Text("123456789".into()), &mut steps), Err(Untold("answer too large")));
    }
}
