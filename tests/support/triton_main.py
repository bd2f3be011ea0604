"""What Triton's client gets from `serve --open-inference`; `triton.sh` runs it, in no other test.

It has an environment of its own: the client's copy of the protocol and ours cannot be loaded into
one program.
"""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found] # not in the tests' environment

TEXTS = [b"good battery", b"caf\xe9", b"bad", "good ☕".encode()]


def main(address: str) -> None:
    """Ask all that the server answers, and one thing that it does not."""
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("huge")
    assert client.get_server_metadata().name == "sentimill"
    metadata = client.get_model_metadata("tiny", as_json=True)
    assert [one["name"] for one in metadata["inputs"]] == ["text"]

    tensor = triton.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=np.object_))
    found = client.infer("tiny", [tensor], request_id="7", client_timeout=30)
    labels = found.as_numpy("label").tolist()
    assert labels == [b"positive", b"", b"negative", b"positive"], labels
    probs = found.as_numpy("probs")
    assert (probs.shape, probs.dtype) == ((4, 3), np.float32)
    assert np.isnan(probs[1]).all()
    assert np.allclose(np.delete(probs, 1, axis=0).sum(axis=1), 1)
    assert found.as_numpy("abstained").tolist()[1] is True
    assert [bool(one) for one in found.as_numpy("error")] == [False, True, False, False]
    assert found.get_response().id == "7"

    wanted = [triton.InferRequestedOutput("score")]
    one = client.infer("tiny", [tensor], outputs=wanted)
    assert one.as_numpy("label") is None
    assert one.as_numpy("score").shape == (4,)

    for call, code in (
        (lambda: client.infer("huge", [tensor]), "NOT_FOUND"),
        (client.get_model_repository_index, "UNIMPLEMENTED"),
    ):
        try:
            call()
        except triton.InferenceServerException as error:
            assert code in error.status(), error
        else:
            raise AssertionError(f"no {code}")
    print("triton ok")  # noqa: T201 - what the script says in the end


if __name__ == "__main__":
    main(sys.argv[1])
