"""The peer that compare.py measures beside Taskpact: three of its operations, as one writes them with FastAPI and SQLModel.

It is meant to be good at what it does. An index serves the list, reads need no transaction, a created row is not read again,
and none of the 40 threads that FastAPI runs such functions on waits for a connection.
"""

import os
import uuid
from datetime import datetime, timezone
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import DateTime, Index
from sqlmodel import Field, Session, SQLModel, create_engine, select

SECRET = os.environ["BETTER_AUTH_SECRET"]

engine = create_engine(os.environ["DATABASE_URL"], pool_size=40, max_overflow=0)
# One statement is its own transaction: no BEGIN, no ROLLBACK.
reading = engine.execution_options(isolation_level="AUTOCOMMIT")


def now() -> datetime:
    return datetime.now(timezone.utc)


class NewTask(SQLModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=1000)
    completed: bool = False


class Task(NewTask, table=True):
    __tablename__ = "tasks"

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    user_id: str = Field(max_length=255)
    completed_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    version: int = 1

    __table_args__ = (Index("tasks_newest", "user_id", "created_at", "id"),)


SQLModel.metadata.create_all(engine)
app = FastAPI()


# It waits for nothing, so it needs no thread.
async def owner(user_id: str, token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    try:
        claims = jwt.decode(token.credentials, SECRET, algorithms=["HS256"], options={"require": ["sub", "exp"]})
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Invalid token")
    if claims["sub"] != user_id:
        raise HTTPException(403, "Not your tasks")
    return user_id


Owner = Annotated[str, Depends(owner)]


@app.get("/health/ready")
def ready() -> None:
    with Session(reading) as session:
        session.exec(select(1)).one()


@app.post("/api/{user_id}/tasks", status_code=201)
def create_task(owner: Owner, new: NewTask) -> Task:
    with Session(engine, expire_on_commit=False) as session:
        task = Task(**new.model_dump(), user_id=owner, completed_at=now() if new.completed else None)
        session.add(task)
        session.commit()
        return task


@app.get("/api/{user_id}/tasks")
def list_tasks(owner: Owner, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Task]:
    newest = select(Task).where(Task.user_id == owner).order_by(Task.created_at.desc(), Task.id.desc()).limit(limit)
    with Session(reading) as session:
        return session.exec(newest).all()


@app.get("/api/{user_id}/tasks/{task_id}")
def get_task(owner: Owner, task_id: uuid.UUID) -> Task:
    with Session(reading) as session:
        task = session.exec(select(Task).where(Task.id == task_id, Task.user_id == owner)).first()
    if task is None:
        raise HTTPException(404, "No such task")
    return task
