//! How often a `crontab` of lsyncd's asks for a full sync.

/// The interval at which everything is to be looked at: between once an hour and once a day. None if a line is malformed.
///
/// Seconds, minutes and hours are counted; the other fields only make it rarer.
pub(super) fn interval(lines: &[String]) -> Option<&'static str> {
    const RUNS: [(u32, &str); 6] = [
        (24, "1h"),
        (12, "2h"),
        (6, "4h"),
        (4, "6h"),
        (2, "12h"),
        (1, "1d"),
    ];
    let mut runs = 0;
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [seconds, minutes, hours, _, _, _] = fields[..] else {
            return None;
        };
        runs += values(seconds, 60)? * values(minutes, 60)? * values(hours, 24)?;
    }
    let (_, interval) = RUNS.iter().find(|(least, _)| runs >= *least)?;
    Some(interval)
}

/// How many values a field stands for.
fn values(field: &str, all: u32) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < all);
    let mut count = 0;
    for part in field.split(',') {
        count += match part.split_once('-') {
            _ if part == "*" => all,
            Some((from, to)) => number(to)?.checked_sub(number(from)?)? + 1,
            None => number(part).map(|_| 1)?,
        };
    }
    Some(count.min(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted() {
        let of = |line: &str| interval(&[line.to_owned()]);
        assert_eq!(of("1 0 3 * * *"), Some("1d"));
        assert_eq!(of("0 0 3,15 * * MON"), Some("12h"));
        assert_eq!(of("0 0 8-18 * * *"), Some("4h"));
        assert_eq!(of("0 * * * * *"), Some("1h"));
        for line in [
            "0 0 3 * *",
            "0 x 3 * * *",
            "0 0 9-3 * * *",
            "0 0 24 * * *",
            "0 0 99999999999 * * *",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
        assert_eq!(interval(&[]), None);
    }
}
