import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2

from accelserve.frontends.grpc_reflection import reflection_pool
from accelserve.wire import tensorflow_pb2, tfserving_pb2


def test_services_are_found_under_upstreams_names():
    service = reflection_pool().FindServiceByName("tensorflow.serving.PredictionService")

    assert set(service.methods_by_name) == {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"}
    assert service.methods_by_name["Predict"].input_type.full_name == "tensorflow.serving.PredictRequest"
    assert set(reflection_pool().FindServiceByName("tensorflow.serving.ModelService").methods_by_name) == {
        "GetModelStatus",
        "HandleReloadConfigRequest",
    }


@pytest.mark.parametrize(
    "name",
    ["tensorflow.TensorProto", "tensorflow.TensorShapeProto.Dim", "tensorflow.Example", "tensorflow.serving.ModelSpec"],
)
def test_messages_are_found_under_upstreams_names(name):
    assert reflection_pool().FindMessageTypeByName(name).full_name == name


def test_a_field_refers_to_upstreams_name():
    pool = reflection_pool()
    inputs = pool.FindMessageTypeByName("tensorflow.serving.PredictRequest").fields_by_name["inputs"]
    code = pool.FindMessageTypeByName("tensorflow.serving.StatusProto").fields_by_name["error_code"]

    assert inputs.message_type.fields_by_name["value"].message_type.full_name == "tensorflow.TensorProto"
    assert code.enum_type.full_name == "tensorflow.error.Code"


def test_our_own_names_are_not_in_the_pool():
    with pytest.raises(KeyError):
        reflection_pool().FindMessageTypeByName("accelserve.wire.tensorflow.TensorProto")


def test_the_generated_messages_keep_their_own_names():
    reflection_pool()

    assert tensorflow_pb2.TensorProto.DESCRIPTOR.full_name == "accelserve.wire.tensorflow.TensorProto"
    assert tfserving_pb2.PredictRequest.DESCRIPTOR.full_name == "accelserve.wire.tfserving.PredictRequest"


def test_a_reflection_client_gets_the_file_of_the_service_and_all_that_it_imports():
    servicer = reflection.ReflectionServicer(["tensorflow.serving.PredictionService"], pool=reflection_pool())
    wanted = reflection_pb2.ServerReflectionRequest(file_containing_symbol="tensorflow.serving.PredictionService")

    [answer] = servicer.ServerReflectionInfo(iter([wanted]), None)

    assert not answer.HasField("error_response")
    assert len(answer.file_descriptor_response.file_descriptor_proto) >= 1
