# Stages: build (shared), predict (the demo's servers, for compose.yaml), lbproxy (the last, hence the default).
# deploy/dockerfile_steps.sh performs these steps without Docker and tests the result; it knows FROM, WORKDIR, COPY,
# RUN, ENV, USER, EXPOSE, ENTRYPOINT, CMD and HEALTHCHECK.

# The image that is not slim has a C compiler, for lbproxy's hot modules; it stays behind in this stage.
FROM python:3.12 AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY lbproxy ./lbproxy
RUN python -m venv /opt/lbproxy && LBPROXY_COMPILE=${LBPROXY_COMPILE:-require} \
    /opt/lbproxy/bin/pip install --quiet --no-cache-dir --disable-pip-version-check .

FROM build AS predict
ENV LBPROXY_COMPILE=no
RUN /opt/lbproxy/bin/pip install --quiet --no-cache-dir --disable-pip-version-check '.[demo]'
ENV PATH=/opt/lbproxy/bin:$PATH
# A number and not a name, so that Kubernetes' runAsNonRoot can check it; no account is needed.
USER 65532:65532
EXPOSE 5000
CMD ["gunicorn", "--bind", "0.0.0.0:5000", "--config", "python:lbproxy.demo.gunicorn_settings", "lbproxy.demo.app:app"]

FROM python:3.12-slim AS lbproxy
COPY --from=build /opt/lbproxy /opt/lbproxy
COPY config/sidecar.yaml /etc/lbproxy/lbproxy.yaml
ENV PATH=/opt/lbproxy/bin:$PATH
USER 65532:65532
EXPOSE 5000 8404
# Exec form: lbproxy itself is PID 1 and gets the SIGTERM of `docker stop`; its own shutdown.grace is 25 s.
ENTRYPOINT ["lbproxy"]
CMD ["run", "--config", "/etc/lbproxy/lbproxy.yaml"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["lbproxy", "healthcheck", "--timeout", "2"]
