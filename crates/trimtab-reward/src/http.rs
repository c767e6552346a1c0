//! Reward from an HTTP endpoint. Knows requests and status codes, not what the server computes.

use trimtab_base::{RewardError, RewardModel, ScoreInput};
use ureq::Agent;
use ureq::http::Uri;

use crate::external::{ExternalLimits, Failure, max_answer_bytes, score_in_batches, tail};
use crate::spec::RewardSpecError;

/// Posts each batch to a URL and reads the rewards from the answer.
///
/// Body and answer are those of [`json_lines`](crate::json_lines), content type `application/x-ndjson`. Refused
/// connections, timeouts and the statuses 408, 429 and 5xx are tried again; any other status but 2xx is final.
/// No redirect is followed and no proxy is taken from the environment.
#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    name: String,
    uri: Uri,
    agent: Agent,
    limits: ExternalLimits,
}

const CONTENT_TYPE: &str = "application/x-ndjson";

impl HttpEndpoint {
    /// The reward under the name used in reports. A URL without a scheme is taken as `http://`.
    ///
    /// # Errors
    /// A URL without a host, or with a scheme other than `http` and `https`.
    pub fn try_new(
        name: impl Into<String>,
        url: &str,
        limits: ExternalLimits,
    ) -> Result<Self, RewardSpecError> {
        let bad_url = || RewardSpecError::BadArgument {
            name: "http",
            expected: "a URL like http://localhost:8000/score",
            got: url.to_owned(),
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full.parse().map_err(|_| bad_url())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(bad_url());
        }
        let config = Agent::config_builder()
            .timeout_global(Some(limits.timeout()))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        Ok(Self {
            name: name.into(),
            uri,
            agent: config.new_agent(),
            limits,
        })
    }

    fn exchange(&self, request: &str, num_items: usize) -> Result<String, Failure> {
        let passing = |error: ureq::Error| Failure::Passing(format!("{}: {error}", self.uri));
        let answer = self
            .agent
            .post(&self.uri)
            .header("Content-Type", CONTENT_TYPE)
            .header("Accept", CONTENT_TYPE);
        let mut answer = answer.send(request).map_err(passing)?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(max_answer_bytes(num_items))
            .read_to_string();
        if status.is_success() {
            return body.map_err(|error| match error {
                ureq::Error::BodyExceedsLimit(_) => Failure::Lasting(format!("{}: {error}", self.uri)),
                error => passing(error),
            });
        }
        let body = body.unwrap_or_default();
        let problem = format!("{} answered {status}: {}", self.uri, tail(&body, 1000));
        let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        Err(if may_pass {
            Failure::Passing(problem)
        } else {
            Failure::Lasting(problem)
        })
    }
}

impl RewardModel for HttpEndpoint {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "as the endpoint defines it"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        score_in_batches(&self.name, &self.limits, batch, |request, num_items| {
            self.exchange(request, num_items)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::testing::text_input;

    /// Answers one connection per script entry, each with the given raw bytes; returns the request bodies.
    struct Server {
        url: String,
        thread: JoinHandle<Vec<String>>,
    }

    impl Server {
        fn start(script: Vec<String>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/score", listener.local_addr().unwrap());
            let serve = move || {
                let answer = |raw: String| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let body = read_request(&stream);
                    stream.write_all(raw.as_bytes()).unwrap();
                    // An unfinished answer keeps its connection until the client gives up.
                    if raw.contains("Content-Length: 999") {
                        let _ = stream.read(&mut [0]);
                    }
                    body
                };
                script.into_iter().map(answer).collect()
            };
            Self {
                url,
                thread: thread::spawn(serve),
            }
        }

        fn bodies(self) -> Vec<String> {
            self.thread.join().unwrap()
        }
    }

    fn read_request(stream: &TcpStream) -> String {
        let mut reader = BufReader::new(stream);
        let mut content_len = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                content_len = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; content_len];
        reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn endpoint(url: &str) -> HttpEndpoint {
        let limits = ExternalLimits {
            batch_len: 2,
            timeout_ms: 10_000,
            num_retries: 1,
            backoff_ms: 0,
        };
        HttpEndpoint::try_new("http:test", url, limits).unwrap()
    }

    fn inputs(responses: &[&str]) -> Vec<ScoreInput> {
        responses.iter().map(|response| text_input(response)).collect()
    }

    #[test]
    fn posts_batches_and_reads_rewards() {
        let two = "{\"reward\": 1}\n{\"reward\": 2}\n";
        let server = Server::start(vec![answer("200 OK", two), answer("200 OK", "{\"reward\": 3}")]);
        let rewards = endpoint(&server.url).score(&inputs(&["a", "b", "c"])).unwrap();
        assert_eq!(rewards, [1.0, 2.0, 3.0]);
        let bodies = server.bodies();
        assert_eq!(
            bodies[1],
            "{\"prompt\":\"prompt\",\"response\":\"c\",\"record\":{}}\n"
        );
        assert_eq!(bodies[0].lines().count(), 2);
    }

    #[test]
    fn server_errors_are_retried() {
        for status in [
            "500 Internal Server Error",
            "503 Service Unavailable",
            "429 Too Many Requests",
        ] {
            let server = Server::start(vec![answer(status, "busy"), answer("200 OK", "{\"reward\": 7}")]);
            assert_eq!(endpoint(&server.url).score(&inputs(&["a"])).unwrap(), [7.0]);
            assert_eq!(server.bodies().len(), 2);
        }
        let server = Server::start(vec![answer("500 X", "one"), answer("500 X", "two")]);
        let error = endpoint(&server.url)
            .score(&inputs(&["a"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gave up after 2 attempts") && error.ends_with("two"),
            "{error}"
        );
    }

    #[test]
    fn refusals_and_wrong_counts_are_final() {
        let check = |raw: String, expect: &str| {
            let server = Server::start(vec![raw]);
            let error = endpoint(&server.url)
                .score(&inputs(&["a"]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expect), "{error}");
            assert_eq!(server.bodies().len(), 1);
        };
        check(
            answer("404 Not Found", "no such model"),
            "answered 404 Not Found: no such model",
        );
        check(answer("302 Found", ""), "answered 302 Found");
        check(answer("200 OK", ""), "expected 1 rewards, got 0");
        check(
            answer("200 OK", "{\"reward\": 1}\n{\"reward\": 1}"),
            "expected 1 rewards, got 2",
        );
        check(
            answer("200 OK", "{\"reward\": null}"),
            "item 0: expected a number as reward, got {\"reward\": null}",
        );
    }

    #[test]
    fn a_stalled_answer_is_cut_by_the_timeout() {
        let stalled = "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"reward\"".to_owned();
        let server = Server::start(vec![stalled]);
        let limits = ExternalLimits {
            timeout_ms: 150,
            num_retries: 0,
            ..ExternalLimits::default()
        };
        let hasty = HttpEndpoint::try_new("http:test", &server.url, limits).unwrap();
        let error = hasty.score(&inputs(&["a"])).unwrap_err().to_string();
        assert!(error.contains("timeout"), "{error}");
        drop(hasty);
        assert_eq!(server.bodies().len(), 1);
    }

    #[test]
    fn a_refused_connection_is_an_error_with_the_url() {
        // Bound and dropped: nothing listens there.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = endpoint(&format!("127.0.0.1:{port}/score"))
            .score(&inputs(&["a"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("http://127.0.0.1:{port}/score")),
            "{error}"
        );
    }

    #[test]
    fn refuses_what_is_no_url() {
        for url in ["", "http://", "ftp://host/x", "http://a b/"] {
            assert!(
                HttpEndpoint::try_new("http", url, ExternalLimits::default()).is_err(),
                "{url}"
            );
        }
    }
}
