"""What people write first: FastAPI, pydantic, session.run in the handler, no batching."""

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

import peer_model as model

app = FastAPI()


class Instances(BaseModel):
    instances: list[list[float]]


@app.post("/predict")
def predict(body: Instances):
    return {"predictions": model.run(np.array(body.instances, dtype=np.float32)).tolist()}


@app.post("/score")
async def score(request: Request):
    body = await request.body()
    row = model.decode(body) if model.TAKES_JPEG else model.from_bytes(body)
    return {"predictions": model.run(row[None]).tolist()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=model.PORT, access_log=False, log_level="warning")
