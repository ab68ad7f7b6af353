//! SPDX licence expressions.

use anyhow::{Result, bail};

/// Whether the allowed licences satisfy an expression. The old `MIT/Apache-2.0` means `OR`.
///
/// # Errors
/// It is not an expression.
pub fn is_allowed(expression: &str, allowed: &[String]) -> Result<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let satisfied = any(&mut words, allowed)?;
    match words.next() {
        None => Ok(satisfied),
        Some(word) => bail!("'{word}' is not expected in '{expression}'"),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut satisfied = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        satisfied |= all(words, allowed)?;
    }
    Ok(satisfied)
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut satisfied = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        satisfied &= one(words, allowed)?;
    }
    Ok(satisfied)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let satisfied = any(words, allowed)?;
            match words.next() {
                Some(")") => Ok(satisfied),
                _ => bail!("a bracket is not closed"),
            }
        }
        Some(name) if !["AND", "OR", "WITH", ")"].contains(&name) => {
            let mut licence = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                licence = format!("{name} WITH {}", words.next().unwrap_or_default());
            }
            Ok(allowed.contains(&licence))
        }
        Some(word) => bail!("'{word}' is not a licence"),
        None => bail!("a licence is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> bool {
        is_allowed(
            expression,
            &[
                "MIT".to_owned(),
                "Unicode-3.0".to_owned(),
                "Apache-2.0 WITH LLVM-exception".to_owned(),
            ],
        )
        .unwrap()
    }

    #[test]
    fn expressions_are_satisfied_by_what_is_allowed() {
        assert!(check("MIT"));
        assert!(check("MIT/Apache-2.0") && check("Apache-2.0 / MIT"));
        assert!(check("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(check("Apache-2.0 WITH LLVM-exception OR Apache-2.0"));
        assert!(!check("Apache-2.0"));
        assert!(!check("MIT AND GPL-3.0-only"));
        assert!(!check("(MIT AND BSD-3-Clause) OR GPL-2.0-only"));
        assert!(
            check("GPL-3.0-only AND GPL-2.0-only OR MIT"),
            "AND binds closer than OR"
        );
    }

    #[test]
    fn what_is_not_an_expression_is_refused() {
        for text in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT", "MIT)"] {
            assert!(is_allowed(text, &[]).is_err(), "{text}");
        }
    }
}
