"""Alembic's entry: runs the migrations over the connection that `jobs.database` hands in, inside its
transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
