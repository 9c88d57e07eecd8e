"""Files by HTTP: each as it is to /score, or several in one body of JSON."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from accelserve.client import Client, ServerError
from accelserve.client.values import Told
from accelserve.score_files.asking import FileBody, Question, RefusalError, Reply, no_connection, refusal_of, spent_of
from accelserve.score_files.ranking import plain_answer

_JSON = {"content-type": "application/json"}


class HttpAsker:
    """client: of this asker alone. address: for messages. now_s: a clock."""

    def __init__(self, client: Client, address: str, question: Question, now_s: Callable[[], float]) -> None:
        self._client = client
        self._address = address
        self._question = question
        self._now_s = now_s
        # With an output to be chosen the server would not know which to rank.
        self._server_ranks = question.top is not None and not question.output and not question.labelled

    def close(self) -> None:
        self._client.close()

    def ask(self, files: Sequence[FileBody]) -> Reply:
        """A name for the input goes with JSON only, so a lone file then is a body of JSON too."""
        alone = len(files) == 1 and not self._question.input
        body = files[0].body if alone else self._joined(files)
        headers = {} if alone else _JSON
        if self._server_ranks:
            try:
                return self._reply(files, body, headers, alone, top=self._question.top)
            except RefusalError as refusal:
                if refusal.status != "400":
                    raise
            # What cannot be ranked is told as it is; and if something else was wrong, that is told now.
            reply = self._reply(files, body, headers, alone, top=None)
            self._server_ranks = False
            return reply
        return self._reply(files, body, headers, alone, top=None)

    def _reply(
        self, files: Sequence[FileBody], body: bytes, headers: dict[str, str], alone: bool, top: int | None
    ) -> Reply:
        started_s = self._now_s()
        told = self._told(body, headers, top)
        spent = spent_of(told.headers, (self._now_s() - started_s) * 1000)
        answer = plain_answer(told.value)
        answers = [answer] if alone else _rows(answer, len(files))
        chosen = [self._chosen(answer) for answer in answers]
        return Reply(chosen, spent, told.headers.get("x-accelserve-device", ""))

    def _told(self, body: bytes, headers: dict[str, str], top: int | None) -> Told[bytes]:
        asked = {"model": self._question.model or None, "top": top}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        path = "/score" + (f"?{query}" if query else "")
        try:
            return self._client.ask("POST", path, body, headers=headers, timeout_s=self._question.timeout_s)
        except ServerError as error:
            raise refusal_of(error) from error
        except OSError as error:
            raise no_connection(self._address, error) from error

    def _joined(self, files: Sequence[FileBody]) -> bytes:
        rows: list[Any] = [{"b64": base64.b64encode(file.body).decode()} for file in files]
        if self._question.input:
            rows = [{self._question.input: row} for row in rows]
        return json.dumps({"instances": rows}).encode()

    def _chosen(self, answer: Any) -> Any:
        wanted = self._question.output
        if not wanted or not isinstance(answer, dict):
            return answer
        if wanted not in answer:
            raise RefusalError("NO OUTPUT", f"the answer has no output {wanted!r}; it has: {', '.join(answer)}")
        return answer[wanted]


def _rows(answer: Any, count: int) -> list[Any]:
    """The answer's part for each file: of one output, or of each of several. Raises RefusalError."""
    if isinstance(answer, dict) and answer and all(isinstance(v, list) and len(v) == count for v in answer.values()):
        return [{name: value[row] for name, value in answer.items()} for row in range(count)]
    if isinstance(answer, list) and len(answer) == count:
        return answer
    if count == 1:  # ranked, one picture's places stand alone
        return [answer]
    raise RefusalError("NO ROWS", f"the answer has no part for each of {count} files: score them with --batch 1")
