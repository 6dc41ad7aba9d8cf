# diffsim-serve on a CPU. TORCH_ARGS chooses the build of torch, as in the Makefile.
FROM python:3.12-slim
ARG TORCH_ARGS=""
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY cli cli
COPY index_store index_store
COPY retrieval retrieval
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_ARGS} torch \
 && pip install --no-cache-dir -c constraints.txt '.[cpu,groups,serve]' \
 && useradd --no-create-home diffsim
USER diffsim
ENV HF_HUB_OFFLINE=1
EXPOSE 8000
ENTRYPOINT ["diffsim-serve", "--host", "0.0.0.0"]
